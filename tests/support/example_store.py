"""The journals of `mlruns.example`, replayed into a fresh store by `orbiter-mlflow sync`."""

import shutil
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from orbiter_mlflow.cli.main import commands
from paths import ROOT

EXAMPLE = ROOT / "mlruns.example"
JOURNALS = sorted((EXAMPLE / "journals").glob("*.jsonl"))
NAMES = [path.stem.partition("-")[2] for path in JOURNALS]


@dataclass(frozen=True)
class ExampleStore:
    """A store with the runs of the example."""

    uri: str
    folder: Path

    def command(self, *arguments: str) -> Result:
        """Run `orbiter-mlflow` against the store."""
        environment = {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_EXPERIMENT_NAME": "example",
            "XDG_STATE_HOME": str(self.folder / "state"),
        }
        return CliRunner().invoke(commands, arguments, env=environment)


def replay(empty_store: Path, folder: Path) -> ExampleStore:
    """Replay the journals into a copy of `empty_store` in `folder`."""
    shutil.copytree(EXAMPLE / "journals", folder / "journals")
    database = folder / "mlflow.db"
    database.write_bytes(empty_store.read_bytes())
    store = ExampleStore(f"sqlite:///{database}", folder)
    done = store.command("sync", str(folder / "journals"), "--ended", "--tracking-uri", store.uri)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("delivered, run") == len(JOURNALS)
    assert not list((folder / "journals").iterdir())
    return store
