"""A config comes back with its whole state, or is refused by name; encoding runs no user code."""

import json
import logging
import os
import random
import subprocess
import sys
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from big_configs import OF_EVERY_TYPE
from config.corpus import config_with, run, values_of
from config.corpus_light import ALIKE, OwnInit, OwnProperty, Plain, Refusing, four_bit
from config.oracle import carried
from configs import Config, DeepLora, Frozen, Lora, hashable, texts, thorough, trees
from logged import as_stored, log_to, params_and_tags, run_with
from orbiter.train import TrainConfig
from orbiter_mlflow import ConfigError, config_from_params, config_to_params, load_config, names
from orbiter_mlflow.config.codec.equality import same
from orbiter_mlflow.config.codec.json_text import canonical, parse
from orbiter_mlflow.config.encoding import encode_config, join_values
from orbiter_mlflow.config.text import config_from_text, json_text, yaml_text
from orbiter_mlflow.runs.diff import diff_runs
from orbiter_mlflow.runs.load_config import config_of
from orbiter_mlflow.text.packed_tags import unpacked
from paths import PYTHONPATH
from secretive import SECRETIVE, SECRETS
from trainers import tracked, trained


def back(config: Any, **options: Any) -> Any:
    """The config as it is loaded."""
    return config_of(run_with(config), type(config), **options)


def problems(config: Any, **options: Any) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        back(config, **options)
    return caught.value.problems


# -- the corpus ------------------------------------------------------------------------------------


def test_each_value_of_the_corpus_is_identical_or_refused_by_name_in_a_fresh_process() -> None:
    done = run("light")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["silent"] == 0
    assert figures["values"] > 110
    assert figures["identical"] > 4 * figures["refused by name"]
    assert set(figures["refused"]) == {
        *("a bound method", "chain map", "dataclass with a local function", "iterator", "lambda"),
        *("large array", "mapping proxy", "masked array", "ml_collections with references"),
        *("object", "object array", "omegaconf part", "omegaconf structured", "secret string"),
        *("partial of a local function", "structured dtype"),
    }


@pytest.mark.parametrize("name", ALIKE)
def test_configs_that_differ_in_anything_readable_differ_in_digest_and_diff(name: str) -> None:
    configs = [config_with(make(), "extra") for make in ALIKE[name]]
    digests = [encode_config(config).digest for config in configs]
    assert len(set(digests)) == len(digests)
    for i, one in enumerate(configs):
        for other in configs[:i]:
            assert diff_runs([run_with(one), run_with(other)]).config
        assert encode_config(config_with(ALIKE[name][i](), "extra")).digest == digests[i]


@pytest.mark.parametrize("place", ["extra", "any", "typed"])
def test_values_that_are_the_same_have_the_same_state(place: str) -> None:
    for make in values_of("light").values():
        one, other = config_with(make(), place), config_with(make(), place)
        if same(one, other):
            assert carried(one) == carried(other)


# -- the state of an instance ----------------------------------------------------------------------


def test_attributes_set_by_an_own_init_come_back(caplog: pytest.LogCaptureFixture) -> None:
    config = OwnInit(temperature=0.2, epochs=3)
    params, tags = params_and_tags(config)
    assert params["temperature"] == "0.2"
    assert "temperature" in json.loads(unpacked(tags)[names.CONFIG_FIELDS])
    loaded = back(config)
    assert (loaded.temperature, loaded.epochs) == (0.2, 3)
    assert same(config_from_params(params, OwnInit), config)
    assert caplog.messages == []
    tampered = as_stored(params | {"temperature": "0.3"}, tags)
    with pytest.raises(ConfigError, match="temperature: was changed"):
        config_of(tampered, OwnInit)


def test_a_property_over_an_attribute_keeps_its_value() -> None:
    loaded = back(TrainConfig(extra={"q": four_bit()}))
    assert loaded.extra["q"].four_bit is True
    found = diff_runs(
        [run_with(TrainConfig(extra={"q": make()})) for make in (OwnProperty, four_bit)]
    )
    assert [row.name for row in found.config] == ["extra.q._four_bit"]


def test_a_class_that_refuses_its_values_is_reported_and_keeps_its_state(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrainConfig(extra={"a": Refusing(3), "b": [Refusing(4)]})
    run = run_with(config)
    assert config_of(run).extra["a"].derived == 4
    assert caplog.messages == []
    monkeypatch.setattr(Refusing, "allowed", False)
    loaded = config_of(run)
    assert (loaded.extra["a"].derived, loaded.extra["b"][0].derived) == (4, 5)
    (message,) = caplog.messages
    assert "made without their constructors" in message
    assert message.count("config.corpus_light:Refusing") == 1
    caplog.clear()
    config_from_params(config_to_params(config), TrainConfig)
    assert "config.corpus_light:Refusing" in caplog.text


class Environment(pydantic.BaseModel):
    """Like pydantic's BaseSettings: takes from the environment what it is not given."""

    host: str = "none"
    port: int = 1

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"host": os.environ.get("MY_HOST", "none"), **given})


def test_the_environment_of_the_reader_never_gets_into_a_config(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MY_HOST", "of-the-run")
    run = run_with(TrainConfig(extra={"env": Environment(port=2)}))
    monkeypatch.setenv("MY_HOST", "of-the-reader")
    loaded = config_of(run).extra["env"]
    assert (loaded.host, loaded.port) == ("of-the-run", 2)
    assert caplog.messages == []


# -- encoding runs no user code --------------------------------------------------------------------


@dataclass
class Seeding:
    """Changes global state whenever its code runs."""

    seed: int = 1
    runs: ClassVar[int] = 0

    def __post_init__(self) -> None:
        Seeding.runs += 1
        random.seed(self.seed)
        os.environ["SEEDING"] = str(Seeding.runs)

    def __eq__(self, other: object) -> bool:
        Seeding.runs += 1
        return True

    __hash__ = None  # type: ignore[assignment]


class Counting(pydantic.BaseModel):
    a: int = 1
    runs: ClassVar[int] = 0

    @pydantic.model_validator(mode="before")
    @classmethod
    def count(cls, given: Any) -> Any:
        Counting.runs += 1
        return given


@dataclass
class Custom:
    """Defines how pydantic reads it."""

    a: int = 1

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        Counting.runs += 1
        return handler(source)


@dataclass
class Users(TrainConfig):
    one: Seeding = field(default_factory=Seeding)
    many: list[Seeding] = field(default_factory=list)
    named: dict[str, Seeding] = field(default_factory=dict)
    model: Counting = field(default_factory=Counting)
    models: list[Counting] = field(default_factory=list)
    either: Seeding | Counting | None = None
    mixed: list[Seeding | Counting] = field(default_factory=list)
    custom: "Custom | None" = None


def test_encoding_runs_no_user_code() -> None:
    config = Users(
        many=[Seeding(2)],
        named={"x": Seeding(3)},
        models=[Counting(a=2)],
        either=Seeding(4),
        mixed=[Seeding(6), Counting(a=3)],
        custom=Custom(),
        extra={"seeding": [(Seeding(5),)], "model": Counting()},
    )
    before = (Seeding.runs, Counting.runs, random.getstate(), dict(os.environ))
    encoded = encode_config(config)
    assert (Seeding.runs, Counting.runs, random.getstate(), dict(os.environ)) == before
    assert encoded.unencodable == {}
    assert carried(config_from_params(encoded.params, Users)) == carried(config)
    os.environ.pop("SEEDING")


# -- order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["sqlite"])
def test_a_store_sorts_params_and_the_config_does_not(
    store: str, request: pytest.FixtureRequest
) -> None:
    uri = request.getfixturevalue(f"{store}_uri")
    weights = {"z": 1.0, "format": 0.5, "a.b": 0.1, "m": {"y": 1, "b": [{"q": 1, "c": 2}]}}
    config = TrainConfig(extra={"weights": weights, "after": OrderedDict(z=1, a={"y": 1, "b": 2})})
    run_id = log_to(uri, *params_and_tags(config))
    loaded = load_config(run_id, tracking_uri=uri)
    assert carried(loaded) == carried(config)
    assert list(loaded.extra["weights"]) == ["z", "format", "a.b", "m"]


def test_only_an_order_that_is_not_sorted_is_written() -> None:
    assert names.KEY_ORDER not in config_to_params(
        TrainConfig(extra={"a": {"b": 1, "c": 2}, "d": 1})
    )
    params = config_to_params(TrainConfig(extra={"b": {"d": 1, "c": 2}, "a": 1}))
    assert parse(params[names.KEY_ORDER]) == {"extra": ["b", "a"], "extra.b": ["d", "c"]}


def test_no_secret_is_in_the_order() -> None:
    key = "hf_" + "AbCd0123" * 4
    config = TrainConfig(
        extra={"z": {key: 1, "a": 2}, "secrets": {"z-hunter2": 1, "a": {"y": 1, "b": 1}}, "b": 1}
    )
    encoded = encode_config(config)
    assert key not in str(encoded)
    assert "hunter2" not in str(encoded)
    assert parse(encoded.params[names.KEY_ORDER]) == {"extra": ["z", "secrets", "b"]}


# -- values kept as text ---------------------------------------------------------------------------


def collate(batch: Any, **keywords: Any) -> Any:
    return batch, keywords


def test_a_value_kept_as_text_can_be_supplied() -> None:
    secret = "hunter2-5f1c9e"
    fn: Any = lambda batch: batch  # noqa: E731  a lambda is the point
    model = object()
    config = TrainConfig(
        extra={
            "collate": fn,
            "list": [1, {"model": model, "token": secret}, (fn, {2, 3})],
            "lora": Lora(alpha=fn),
            "partial": partial(fn, 1),
            "many": [Frozen(inner=fn)],
        }
    )
    needed = problems(config)
    assert needed.keys() == {
        *("extra.collate", "extra.list[1].model", "extra.list[1].token", "extra.list[2][0]"),
        *("extra.lora.alpha", "extra.partial", "extra.many[0].inner"),
    }
    assert "define it at the top of a module" in needed["extra.collate"]
    assert "overrides={'extra.collate': ...}" in needed["extra.collate"]
    supplied: dict[str, Any] = {path: fn for path in needed if "token" not in path}
    supplied |= {"extra.list[1].model": model, "extra.partial": config.extra["partial"]}
    loaded = back(config, overrides=supplied, secrets={"extra.list[1].token": secret})
    assert same(loaded, config)
    assert loaded.extra["list"][1]["model"] is model  # not a copy
    unknown = problems(config, overrides={**supplied, "extra.gone": 1, "epochs": 2})
    assert unknown.keys() == {"extra.gone", "epochs", "extra.list[1].token"}
    assert "was not logged as text only" in unknown["epochs"]


async def test_the_warning_says_what_to_do_instead(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = TrainConfig(
        extra={"fn": lambda: 0, "big": np.zeros(5_000), "custom": deque([object()])}
    )
    with caplog.at_level(logging.WARNING):
        await trained(tracked(sqlite_uri, config))
    (message,) = [text for text in caplog.messages if "but not loaded back" in text]
    assert "extra.fn (a function or class that its module lacks under its name: define" in message
    assert "extra.big (a large array or a tensor: save it as an artifact" in message
    assert "extra.custom[0] (its class has no exact encoding: make it a dataclass" in message
    assert "overrides=" in message


def test_the_texts_of_objects_differ_if_their_state_does() -> None:
    class Local:
        def __init__(self, size: int) -> None:
            self.inner = SimpleNamespace(size=size)

    one, other = (config_to_params(TrainConfig(extra={"v": Local(size)})) for size in (1, 2))
    assert one["extra.v"] != other["extra.v"]
    assert "size" in one["extra.v"]


def test_the_text_of_a_function_is_the_same_in_each_process() -> None:
    script = """
from orbiter.train import TrainConfig
from orbiter_mlflow import config_to_params
print(config_to_params(TrainConfig(extra={"f": lambda word: word in {"a", "b", "c"}}))["extra.f"])
"""
    texts = set()
    for seed in ("1", "2", "3"):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        texts.add(done.stdout)
    assert len(texts) == 1


# -- modules ---------------------------------------------------------------------------------------

PACKAGES = {
    "lazy_a/__init__.py": "import sys\nassert 'lazy_a.inner' not in sys.modules\n",
    "lazy_a/inner.py": "import dataclasses\n@dataclasses.dataclass\nclass A:\n    x: int = 1\n",
    "lazy_b/__init__.py": "def function(): pass\n",
    "lazy_c/__init__.py": (
        "from orbiter.train import TrainConfig\nclass C(TrainConfig):\n    pass\n"
        "import collections\nPair = collections.namedtuple('Pair', 'a b')\n"
    ),
}
ENCODE = """
import json, sys
import lazy_a, lazy_a.inner, lazy_b, lazy_c
from logged import params_and_tags
config = lazy_c.C(extra={"a": lazy_a.inner.A(2), "b": lazy_b.function, "c": [lazy_c.Pair(1, 2)]})
print(json.dumps(params_and_tags(config)))
"""
LOAD = """
import json, sys
from logged import as_stored
from orbiter_mlflow import ConfigError
from orbiter_mlflow.runs.load_config import config_of
run = as_stored(*json.load(sys.stdin))
loaded = lambda: sorted(name for name in sys.modules if name.startswith("lazy"))
try:
    config_of(run)
except ConfigError as error:
    print(json.dumps(error.problems))
assert loaded() == []
try:
    config_of(run, import_modules=("lazy_a", "lazy_c"))
except ConfigError as error:
    print(json.dumps(error.problems))
assert loaded() == ["lazy_a", "lazy_a.inner", "lazy_c"], loaded()
print(json.dumps(repr(config_of(run, import_modules=("lazy_a", "lazy_b", "lazy_c")))))
"""


def test_all_modules_that_are_missing_are_named_at_once_and_only_those_allowed_are_imported(
    tmp_path: Path,
) -> None:
    for name, source in PACKAGES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    path = os.pathsep.join([str(tmp_path), PYTHONPATH])
    environment = {**os.environ, "PYTHONPATH": path}

    def done(program: str, given: str = "") -> list[Any]:
        out = subprocess.run(
            [sys.executable, "-c", program],
            input=given, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert out.returncode == 0, out.stderr
        return [json.loads(line) for line in out.stdout.splitlines()]

    (logged,) = done(ENCODE)
    first, second, config = done(LOAD, json.dumps(logged))
    (problem,) = [text for text in first.values() if "import lazy_a.inner" in text]
    assert "import lazy_a.inner; import lazy_b; import lazy_c" in problem
    assert "import_modules=('lazy_a', 'lazy_b', 'lazy_c',)" in problem
    (problem,) = second.values()
    assert "are not imported: import lazy_b; " in problem
    assert "A(x=2)" in config
    assert "Pair(a=1, b=2)" in config


# -- earlier versions ------------------------------------------------------------------------------


def sorted_params(params: dict[str, str]) -> dict[str, Any]:
    """Params as JSON without any order, since version 1 kept none."""

    def unordered(value: Any) -> Any:
        if type(value) is list:
            return [*map(unordered, value)]
        if type(value) is not dict:
            return value
        if "$dict" in value:
            return {"$dict": sorted(map(unordered, value["$dict"]), key=canonical)}
        return {key: unordered(item) for key, item in value.items()}

    whole = join_values(params)
    return {key: unordered(parse(text)) for key, text in whole.items() if key != names.KEY_ORDER}


VERSION_1 = {
    "every type": (OF_EVERY_TYPE, {}),
    "secretive": (SECRETIVE, SECRETS),
    "keys": (
        TrainConfig(
            extra={
                "a": 1,
                "b.c": 2,
                "": {"x": 3},
                "d": {"e f": (1,), "g": 1},
                "/": 1,
                3: {"z": Lora(2)},  # type: ignore[dict-item]
            }
        ),
        {},
    ),
}


@pytest.mark.parametrize("name", VERSION_1)
def test_a_config_that_version_1_logged_is_read_as_it_was(name: str) -> None:
    texts = json.loads((Path(__file__).with_name("config_version_1.json")).read_text())[name]
    assert texts["tags"][names.CONFIG_CODEC] == "1"
    config, secrets = VERSION_1[name]
    loaded = config_of(as_stored(texts["params"], texts["tags"]), type(config), secrets=secrets)
    assert sorted_params(config_to_params(loaded)) == sorted_params(config_to_params(config))


# -- properties ------------------------------------------------------------------------------------


def with_more(lora: Lora, more: dict[str, Any]) -> Lora:
    vars(lora).update(more)
    return lora


more_kinds: st.SearchStrategy[Any] = st.recursive(
    trees,
    lambda inner: st.one_of(
        st.dictionaries(texts, inner, max_size=3).map(OrderedDict),
        st.dictionaries(st.one_of(texts, hashable), inner, max_size=3),
        st.lists(inner, max_size=3).map(deque),
        st.dictionaries(st.sampled_from(["z", "a", "größe"]), inner).map(
            lambda items: SimpleNamespace(**items)
        ),
        st.builds(
            with_more,
            st.builds(Lora, inner),
            st.dictionaries(st.sampled_from(["z", "a.b", "a"]), inner, max_size=2),
        ),
        st.builds(partial, st.just(collate), inner, key=inner),
        st.builds(slice, inner, inner),
        st.builds(range, st.integers(-9, 9)),
        st.fractions(),
        st.sampled_from([Lora, collate, np.tanh, np.mean, np.dtype("int8"), ...]),
        # One NaN: `tolist` loses the bits of others.
        st.lists(st.floats(allow_nan=False) | st.just(np.nan), max_size=3).map(np.array),
    ),
    max_leaves=8,
)


@given(st.dictionaries(texts, more_kinds, max_size=4), more_kinds)
@thorough
def test_any_config_of_more_kinds_comes_back_in_its_order(
    extra: dict[str, Any], mixed: Any
) -> None:
    config = Config(extra=extra, mixed=mixed, data=mixed)
    encoded = encode_config(config)
    assert encoded.unencodable == {}
    if not encoded.redacted:
        loaded = config_from_params(dict(sorted(encoded.params.items())), Config)
        assert carried(loaded) == carried(config)


@given(more_kinds, more_kinds)
@thorough
def test_more_kinds_that_differ_have_different_params(one: Any, other: Any) -> None:
    params = [config_to_params(TrainConfig(extra={"v": value})) for value in (one, other)]
    assert (params[0] == params[1]) == (carried(one) == carried(other))


def test_a_secret_inside_any_type_is_redacted_and_can_be_supplied() -> None:
    secret = "hunter2-5f1c9e"
    config = TrainConfig(
        extra={
            "ordered": OrderedDict(z=1, api_key=secret),
            "namespace": SimpleNamespace(hf_token=secret, a=1),
            "partial": partial(collate, api_key=secret),
            "hidden": pydantic.SecretStr(secret),
            "array": np.array([f"password={secret}"]),
            "more": with_more(Lora(), {"password": secret}),
            "fn": lambda: secret,
        }
    )
    run = run_with(config)
    assert secret not in str(run)
    needed = [path for path in problems(config) if path != "extra.fn"]
    assert set(needed) == {
        *("extra.ordered.api_key", "extra.namespace.hf_token", "extra.more.password"),
        *("extra.partial.keywords.api_key", "extra.hidden", "extra.array[0]"),
    }
    supplied: dict[str, Any] = dict.fromkeys(needed, secret)
    supplied["extra.hidden"] = config.extra["hidden"]
    supplied["extra.array[0]"] = f"password={secret}"
    fn = config.extra["fn"]
    loaded = config_of(run, secrets=supplied, overrides={"extra.fn": fn})
    assert carried(loaded) == carried(config)


def test_a_plain_class_of_a_user_comes_back() -> None:
    assert Plain(3) == back(TrainConfig(extra={"p": Plain(3)})).extra["p"]


class OverList(list[int]):
    """A subclass of a container, with attributes of its own."""


class Raising:
    """Has a repr that raises."""

    def __repr__(self) -> str:
        raise RuntimeError


def test_one_value_that_does_not_come_back_leaves_its_neighbours_intact() -> None:
    odd = Plain(3)
    vars(odd)[1] = 2  # type: ignore[index]  # some libraries do so
    config = TrainConfig(
        extra={"z": {"odd": odd, "fine": (1,)}, "raises": Raising(), "a": Plain(4)}
    )
    encoded = encode_config(config)
    assert encoded.unencodable.keys() == {"extra.z.odd", "extra.raises"}
    supplied = {"extra.z.odd": odd, "extra.raises": None}
    loaded = back(config, overrides=supplied)
    assert list(loaded.extra) == ["z", "raises", "a"]
    assert loaded.extra["z"]["fine"] == (1,)


def test_the_text_of_a_container_shows_its_attributes() -> None:
    texts = set()
    for size in (1, 2):
        items = OverList([1])
        items.size = size  # type: ignore[attr-defined]
        texts.add(config_to_params(TrainConfig(extra={"v": items}))["extra.v"])
    assert len(texts) == 2


def test_only_a_limited_part_of_a_live_model_is_read() -> None:
    class Module:
        def __init__(self, depth: int) -> None:
            self.weights = np.zeros(200_000)
            self.children = [Module(depth - 1) for _ in range(20)] if depth else []
            self.parent = self

    config = TrainConfig(extra={"model": Module(2)})
    start = time.process_time()
    encoded = encode_config(config)
    assert time.process_time() - start < 2
    assert encoded.unencodable.keys() == {"extra.model"}
    assert len(encoded.params["extra.model"]) < 6_000


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_text_that_people_edit_keeps_attributes_and_order(form: Any) -> None:
    config = OwnInit(temperature=0.2, extra={"z": {"y": 1, "b": 2}, "a": OrderedDict(z=1, a=2)})
    text = (json_text if form == "json" else yaml_text)(config_to_params(config))
    assert carried(config_from_text(text, OwnInit, format=form)) == carried(config)


def test_a_list_of_marked_objects_is_read_without_a_note(caplog: pytest.LogCaptureFixture) -> None:
    config = Config(loras=[DeepLora(1), Lora(alpha=float("nan"))])
    assert carried(back(config)) == carried(config)
    assert caplog.messages == []


def test_a_secret_in_a_list_of_two_is_redacted_in_either_place() -> None:
    secret = "hunter2-5f1c9e"
    for items in (
        [f"https://u:{secret}@h/2", "x"],
        ["x", f"https://u:{secret}@h"],
        ["pwd", secret],
    ):
        assert secret not in str(encode_config(TrainConfig(extra={"v": items})))
