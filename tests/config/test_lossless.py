"""Any config comes back identical from a real store, whatever it holds and whatever its size."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from big_configs import (
    LOOKALIKES,
    UNICODE,
    WideConfig,
    leaves,
    prompt,
    rl_config,
    wide_config,
)
from configs import class_members, class_of, configs, texts, thorough, trees
from logged import log_to, params_and_tags, run_with
from orbiter.train import TrainConfig
from orbiter_mlflow import load_config, names
from orbiter_mlflow.config.codec.equality import same
from orbiter_mlflow.runs.load_config import config_of
from orbiter_mlflow.runs.store import RunStore
from trainers import stored, tracked, trained


@st.composite
def generated_classes(draw: st.DrawFn) -> Any:
    members = draw(class_members)
    options = {name: draw(st.booleans()) for name in ("frozen", "slots", "inherits")}
    return class_of(members, **options)(*(value for _, value, _ in members))


anything = st.one_of(
    configs,
    generated_classes(),
    st.dictionaries(texts, trees, max_size=5).map(lambda extra: TrainConfig(extra=extra)),
)


def examples(count: int) -> list[Any]:
    """Generate configs without secrets."""
    found: list[Any] = []

    @given(anything)
    @settings(thorough, max_examples=count)
    def collect(config: Any) -> None:
        tags = run_with(config).tags
        assert names.CONFIG_UNENCODABLE not in tags
        assume(names.CONFIG_REDACTED not in tags)
        found.append(config)

    collect()
    return found


@pytest.mark.parametrize(("store", "count"), [("sqlite", 60), ("server", 25)])
def test_any_config_comes_back_from_a_store(
    store: str, count: int, request: pytest.FixtureRequest
) -> None:
    uri: str = request.getfixturevalue(f"{store}_uri")
    logged = {log_to(uri, *params_and_tags(config)): config for config in examples(count)}
    assert len(logged) >= count
    read = {run.run_id: run for run in RunStore(uri).search("", ["0"]) if run.run_id in logged}
    assert read.keys() == logged.keys()
    for run_id, config in logged.items():
        assert same(config_of(read[run_id], type(config)), config), config


def all_at_once() -> TrainConfig:
    """One config with everything that is large or odd."""
    return TrainConfig(
        output_dir=prompt(),
        extra={
            "rl": rl_config(),
            "wide": wide_config(),
            "unicode": UNICODE | {text: key for key, text in UNICODE.items()},
            "lookalikes": {f"k{n}": text for n, text in enumerate(LOOKALIKES)},
            "keys": dict.fromkeys(LOOKALIKES, 1),
            "list": LOOKALIKES,
        },
    )


BIG: dict[str, Callable[[], TrainConfig]] = {
    "rl": lambda: TrainConfig(extra=rl_config()),
    "wide": wide_config,
    "prompt": lambda: TrainConfig(output_dir=prompt(), extra={"prompts": [prompt()]}),
    "all": all_at_once,
}


@pytest.mark.server
async def test_configs_of_real_size_come_back(sqlite_uri: str, server_uri: str) -> None:
    assert leaves(rl_config()) >= 400
    assert len(WideConfig.__dataclass_fields__) >= 120
    assert len(prompt()) == 50_000
    places = dict.fromkeys(BIG, sqlite_uri) | {"all": server_uri}
    made = {
        name: tracked(places[name], make(), experiment="big", run_name=name)
        for name, make in BIG.items()
    }
    await asyncio.gather(*map(trained, made.values()))
    for name, trainer in made.items():
        run_id = stored(places[name], trainer).info.run_id
        loaded = load_config(run_id, tracking_uri=places[name])
        assert same(loaded, BIG[name]()), name
