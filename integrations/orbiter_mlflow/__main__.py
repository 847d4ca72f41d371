"""`python -m orbiter_mlflow` is `orbiter-mlflow`."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command; one that cannot even be loaded exits with 3, never with 1, an answer."""
    try:
        from orbiter_mlflow.cli.main import main as run
    except Exception as error:
        print(f"orbiter-mlflow: cannot be loaded: {error!r}", file=sys.stderr)
        sys.exit(3)
    run()


if __name__ == "__main__":
    main()
