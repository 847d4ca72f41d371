"""The packages that system metrics need, which the extra `system` installs."""

from importlib import import_module

__all__ = ["missing_packages"]

_MODULES = ("psutil", "pynvml")  # nvidia-ml-py brings pynvml


def missing_packages() -> str | None:
    """Import the packages of the extra; returns what to do if one of them is not installed.

    Call it before the training begins, and on its thread: a process that is forked while another
    thread imports a module cannot import that module any more.
    """
    for name in _MODULES:
        try:
            import_module(name)
        except ImportError as error:
            return (
                f"system_metrics needs psutil and nvidia-ml-py ({error}): "
                "pip install 'orbiter[system]'"
            )
    return None
