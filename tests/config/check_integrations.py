"""`make test-integrations`: the corpus of the large libraries, in their own environment.

`make test` does not collect it, because of its name.
"""

import json
import os
import subprocess
import sys

import pytest

from config.corpus import config_with, run
from config.corpus_heavy import HEAVY, HEAVY_ALIKE
from logged import run_with
from orbiter.train import TrainConfig
from orbiter_mlflow.config.encoding import encode_config
from orbiter_mlflow.runs.diff import diff_runs
from paths import PYTHONPATH

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries warn

LOAD = """
import json, sys
from logged import as_stored
from orbiter_mlflow import ConfigError
from orbiter_mlflow.runs.load_config import config_of
run = as_stored(*json.load(sys.stdin))
try:
    config_of(run)
except ConfigError as error:
    print(error, file=sys.stderr)
assert "trl" not in sys.modules
config = config_of(run, import_modules=("trl", "transformers", "torch"))
print(json.dumps([type(config.extra["args"]).__name__, config.extra["q"].load_in_4bit]))
"""


def test_each_value_of_the_corpus_is_identical_or_refused_by_name() -> None:
    done = run("heavy")
    assert done.returncode == 0, done.stderr[-20_000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    print(figures)
    assert figures["silent"] == 0
    assert figures["values"] > 60
    assert set(figures["refused"]) == {"generator", "module", "parameter", "tensor"}
    # Some 60 ms, but a garbage collection with torch loaded takes seconds.
    assert figures["slowest encoding, ms"][0] < 10_000
    assert figures["slowest loading, ms"][0] < 10_000


def test_the_light_corpus_gives_the_same_result_here() -> None:
    done = run("light")
    assert done.returncode == 0, done.stderr[-20_000:]


@pytest.mark.parametrize("name", HEAVY_ALIKE)
def test_configs_that_differ_differ_in_digest_and_diff(name: str) -> None:
    configs = [config_with(make(), "extra") for make in HEAVY_ALIKE[name]]
    digests = [encode_config(config).digest for config in configs]
    assert len(set(digests)) == len(digests)
    for i, one in enumerate(configs):
        for other in configs[:i]:
            assert diff_runs([run_with(one), run_with(other)]).config


def test_4_bit_and_8_bit_quantization_are_two_configs() -> None:
    from transformers import BitsAndBytesConfig

    four, eight = (
        TrainConfig(extra={"q": BitsAndBytesConfig(**{f"load_in_{bits}bit": True})})
        for bits in (4, 8)
    )
    changed = {row.name: row.values for row in diff_runs([run_with(four), run_with(eight)]).config}
    assert changed == {
        "extra.q._load_in_4bit": ("True", "False"),
        "extra.q._load_in_8bit": ("False", "True"),
    }


def test_encoding_touches_neither_the_random_state_nor_the_environment() -> None:
    import torch

    made = {name: make() for name, make in HEAVY.items()}
    before = torch.random.get_rng_state(), dict(os.environ)
    encode_config(TrainConfig(extra=made))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert dict(os.environ) == before[1]


def test_lazy_packages_are_imported_where_they_are_allowed() -> None:
    import trl
    from transformers import BitsAndBytesConfig

    args = trl.SFTConfig(output_dir="out", report_to=[], use_cpu=True, bf16=False)
    stored = run_with(TrainConfig(extra={"args": args, "q": BitsAndBytesConfig(load_in_4bit=True)}))
    done = subprocess.run(
        [sys.executable, "-c", LOAD],
        input=json.dumps([dict(stored.params), dict(stored.tags)]),
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == ["SFTConfig", True]
    assert "import transformers.utils.quantization_config; " in done.stderr
    assert "import trl.trainer.sft_config" in done.stderr
