"""What goes wrong when a config is read back from its params; no message shows a value."""

from collections.abc import Mapping

__all__ = ["ConfigError", "UnreadableError"]


class ConfigError(ValueError):
    """The params do not give back the config.

    Attributes:
        problems: all that is wrong: path of the param -> reason.
    """

    def __init__(self, config_type: str, problems: Mapping[str, str]) -> None:
        self.config_type = config_type
        self.problems = dict(problems)
        lines = (f"\n  {path}: {reason}" for path, reason in self.problems.items())
        super().__init__(f"{config_type} cannot be rebuilt from these params:{''.join(lines)}")

    def __reduce__(self) -> tuple[type["ConfigError"], tuple[str, dict[str, str]]]:
        return type(self), (self.config_type, self.problems)


class UnreadableError(ValueError):
    """One text or JSON value that cannot be read; says why, and never shows the value."""
