"""`load_config`: the logged config, or an error that lists every problem."""

import base64
import logging
import re
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from types import GenericAlias
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from configs import Client, Color, Config, DeepLora, Frozen, Lora, Mode, thorough
from logged import as_stored, log_to, params_and_tags, run_with
from orbiter.train import TrainConfig
from orbiter_mlflow import ConfigError, config_from_params, config_to_params, load_config, names
from orbiter_mlflow.config.codec.equality import same
from orbiter_mlflow.errors import RunNotFoundError, StoreError
from orbiter_mlflow.runs.load_config import config_of
from orbiter_mlflow.runs.model import StoredRun
from secretive import SECRETIVE, SECRETS, S
from trainers import stored, tracked, trained


def problems_of(run: StoredRun, config_type: Any = None, **options: Any) -> dict[str, str]:
    """The problems that keep the run's config from being rebuilt."""
    with pytest.raises(ConfigError) as caught:
        config_of(run, config_type, **options)
    assert run.run_id in str(caught.value)
    return caught.value.problems


def changed(
    run: StoredRun, params: Mapping[str, str | None] = {}, tags: Mapping[str, str | None] = {}
) -> StoredRun:
    """The run with these params and tags; without those that are None."""
    merged_params, merged_tags = {**run.params, **params}, {**run.tags, **tags}
    return replace(
        run,
        params={key: text for key, text in merged_params.items() if text is not None},
        tags={key: text for key, text in merged_tags.items() if text is not None},
    )


# -- the config of a run ---------------------------------------------------------------------------


async def test_the_config_of_a_run_comes_from_its_params_alone(
    sqlite_uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config(
        learning_rate=1,
        lora=DeepLora(3),
        maybe=Lora(targets=["q"]),  # type: ignore[arg-type]  # it breaks its annotation
        color=Color.ONE,
        mode=Mode.FAST,
        names={"a", "b"},
        loras=[Lora(1), Lora(2)],
        extra={"prompt": "x" * 20_000, "nested": {"t": (1, 2.0)}, "odd.key/": [None]},
    )
    trainer = await trained(tracked(sqlite_uri, config))
    run = stored(sqlite_uri, trainer)
    MlflowClient(sqlite_uri).log_param(run.info.run_id, "note", "of a script")

    loaded = load_config(run.info.run_id, tracking_uri=sqlite_uri)

    assert type(loaded) is Config
    assert loaded == config
    assert same(loaded, config)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", sqlite_uri)
    assert same(load_config(run.info.run_id, Config), config)
    assert caplog.messages == []


def test_what_the_store_does_not_have(sqlite_uri: str, tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="no run"):
        load_config("0" * 32, tracking_uri=sqlite_uri)
    with pytest.raises(StoreError, match="no store"):
        load_config("0" * 32, tracking_uri=f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(TypeError, match="dataclass"):
        config_of(as_stored({}), dict)
    with pytest.raises(TypeError, match="dataclass"):
        config_of(as_stored({}), TrainConfig())  # type: ignore[arg-type]  # refused


# -- whether the params are those that were logged -------------------------------------------------

TAMPERED: dict[str, tuple[dict[str, str | None], dict[str, str]]] = {
    "changed": ({"epochs": "2"}, {"epochs": "was changed"}),
    "changed below": ({"lora.r": "9"}, {"lora.r": "was changed"}),
    "missing": ({"epochs": None}, {"epochs": "is missing"}),
    "missing below": ({"extra.note": None}, {"extra.note": "is missing"}),
    "added": ({"extra.more": "1"}, {"extra.more": "added"}),
    "a piece changed": ({"output_dir:1": "y" * 5000}, {"output_dir:1": "was changed"}),
    "a piece missing": ({"output_dir:1": None}, {"output_dir:1": "is missing"}),
    "all": (
        {"epochs": "2", "extra.note": None, "lora": "{}", "batch_size": "null"},
        {
            "epochs": "was changed",
            "extra.note": "is missing",
            "lora": "added",
            "batch_size": "was changed",
        },
    ),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_params_that_are_not_as_logged_are_named(case: str) -> None:
    change, expected = TAMPERED[case]
    run = run_with(Config(output_dir="x" * 14_000, extra={"note": "one"}))
    problems = problems_of(changed(run, change))
    for key, reason in expected.items():
        assert reason in problems[key], problems
    assert not {key for key in problems if ":" not in key} - expected.keys() - {"output_dir"}


def test_in_a_store_too(sqlite_uri: str) -> None:
    run_id = log_to(sqlite_uri, *params_and_tags(TrainConfig(extra={"a": 1})))
    MlflowClient(sqlite_uri).log_param(run_id, "extra.b", 2)
    with pytest.raises(ConfigError, match=r"extra\.b: was not logged with the config"):
        load_config(run_id, tracking_uri=sqlite_uri)


def test_without_checksums_all_keys_are_named() -> None:
    run = changed(run_with(TrainConfig()), {"epochs": "2"})
    none = zlib.compress(b"[]")
    for text in (None, "!", "QUJD", base64.b64encode(none).decode()):
        (reason,) = problems_of(changed(run, tags={names.CONFIG_CHECKSUMS: text})).values()
        assert "batch_size, epochs, extra, learning_rate, output_dir" in reason
    whole = run_with(TrainConfig())
    assert config_of(changed(whole, tags={names.CONFIG_CHECKSUMS: None})) == TrainConfig()


@pytest.mark.parametrize(
    ("tag", "text", "reason"),
    [
        (names.CONFIG_DIGEST, None, "is missing"),
        (names.CONFIG_DIGEST, "0" * 64, "was changed"),
        (names.CONFIG_FIELDS, None, "list of fields"),
        (names.CONFIG_FIELDS, '{"a": 1}', "list of fields"),
        (names.CONFIG_FIELDS, "[1", "list of fields"),
        (names.CONFIG_CODEC, "3", "is '3'; this orbiter_mlflow reads '1' and '2'"),
    ],
)
def test_tags_that_were_changed_are_named(tag: str, text: str | None, reason: str) -> None:
    problems = problems_of(changed(run_with(TrainConfig()), tags={tag: text}))
    assert reason in problems[tag]


def test_tags_may_be_in_pieces_and_of_later_lives() -> None:
    wide = make_dataclass("wide", [(f"field_number_{n}", int, n) for n in range(600)])
    run = run_with(wide())
    assert f"{names.CONFIG_FIELDS}:1" in run.tags
    later = {names.in_life(name, 2): "of a later life" for name in run.tags}
    assert config_of(changed(run, tags=later), wide) == wide()
    gone = changed(run, tags={f"{names.CONFIG_FIELDS}:1": None})
    assert "pieces are missing" in problems_of(gone, wide)[names.CONFIG_FIELDS]


def test_a_run_that_was_continued_with_other_params_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tag = names.in_life(names.CONFIG_CHANGED, 2)
    run = changed(run_with(TrainConfig(epochs=3)), tags={tag: '{"epochs": ["3", "4"]}'})
    assert config_of(run) == TrainConfig(epochs=3)
    (message,) = caplog.messages
    assert message.endswith(f"the run was resumed with other params, which are in {tag}")


def test_a_run_of_ours_whose_config_is_not_there_yet() -> None:
    run = as_stored({"epochs": "1"}, {names.UID: "u"})
    assert "mark_validated" in problems_of(run)[names.CONFIG_CODEC]


# -- the class -------------------------------------------------------------------------------------


def named(name: str) -> StoredRun:
    return changed(run_with(TrainConfig()), tags={names.CONFIG_TYPE: name})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("antigravity:Config", "import antigravity first, or pass config_type="),
        ("configs:Missing", "import configs first, or pass config_type="),
        ("__main__:Config", "was defined in the script itself: pass the class as config_type="),
        ("configs:Lora", "is not a TrainConfig: pass config_type="),
        ("json:JSONDecoder", "is not a TrainConfig: pass config_type="),
        ("os:system", "pass config_type="),
        ("", "orbiter.config.type is missing; pass config_type="),
        ("\x1b[31mx:Y", "is not imported: import"),
    ],
)
def test_a_tag_imports_nothing(name: str, reason: str) -> None:
    problems = problems_of(named(name))
    assert reason in problems["its class"]
    assert "\x1b" not in problems["its class"]
    assert "antigravity" not in sys.modules
    assert same(config_of(named(name), TrainConfig), TrainConfig())


def test_another_class_can_be_passed(caplog: pytest.LogCaptureFixture) -> None:
    run = run_with(TrainConfig(epochs=3))
    twin = make_dataclass("Twin", [], bases=(TrainConfig,), slots=True)
    assert type(config_of(run, twin)) is twin
    (message,) = caplog.messages
    assert "it was logged as a orbiter.train.trainer:TrainConfig, and is loaded as a" in message
    assert f"run {run.run_id}" in message


class Pair(NamedTuple):
    one: Any
    two: Any


@dataclass
class InScript(TrainConfig):
    pair: Pair | None = None
    lora: Any = None
    color: Any = None


def test_a_class_that_has_moved_brings_its_neighbours(caplog: pytest.LogCaptureFixture) -> None:
    config = InScript(pair=Pair(Frozen(), (1,)), lora=[Lora(2)], color=Color.ONE)
    config.extra = {"pair": Pair([Pair(1, 2)], None), "configs:": "__main__:Pair"}
    params, tags = params_and_tags(config)
    for old in ("__main__", "scripts.old_train"):  # as if it had run there
        swapped = {key: text.replace(f'"{__name__}:', f'"{old}:') for key, text in params.items()}
        assert swapped != params
        run = log_again(swapped, tags | {names.CONFIG_TYPE: f"{old}:InScript"})
        assert same(config_of(run, InScript), config)
    assert caplog.messages == []
    (problem,) = problems_of(log_again(swapped, tags), InScript).values()
    assert "import scripts.old_train" in problem


def log_again(params: Mapping[str, str], tags: Mapping[str, str]) -> StoredRun:
    """A run in which just these params were logged."""
    from orbiter_mlflow.config.encoding import params_digest
    from orbiter_mlflow.config.tags import write_checksums

    fresh = {
        names.CONFIG_DIGEST: params_digest(params),
        names.CONFIG_CHECKSUMS: write_checksums(params),
    }
    return as_stored(params, {**tags, **fresh})


# -- secrets ---------------------------------------------------------------------------------------


def test_all_secrets_are_requested_at_once_and_then_filled_in() -> None:
    run = run_with(SECRETIVE)
    assert S not in str(run)
    problems = problems_of(run)
    assert problems.keys() == SECRETS.keys()
    assert all("give it in `secrets`" in reason for reason in problems.values())
    assert same(config_of(run, secrets=SECRETS), SECRETIVE)
    del problems["extra.argv[3]"]
    given = {path: SECRETS[path] for path in problems}
    assert list(problems_of(run, secrets=given)) == ["extra.argv[3]"]


words = st.sampled_from(["a", "b", "c"])
secretive_trees: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.integers(), st.text(max_size=3), st.none(), st.just(Path("/x")), st.binary()),
    lambda inner: st.one_of(
        st.dictionaries(words, inner, max_size=3),
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.builds(Frozen, inner, inner, inner),
        st.builds(Client, inner, st.text(max_size=3)),
    ),
    max_leaves=10,
)


def at(config: Any, path: str) -> Any:
    """The value at a path in a config."""
    found = config
    for name, number in re.findall(r"(\w+)|\[(\d+)\]", path):
        if number:
            found = found[int(number)]
        else:
            found = found[name] if isinstance(found, dict) else getattr(found, name)
    return found


@given(st.dictionaries(words, secretive_trees, max_size=3), secretive_trees)
@thorough
def test_any_secrets_can_be_put_in(extra: dict[str, Any], mixed: Any) -> None:
    config = Config(mixed=mixed, extra=extra, learning_rate=mixed)
    run = run_with(config, ("a", "inner", "mixed"))
    try:
        assert same(config_of(run), config)
    except ConfigError as error:
        secrets = {path: at(config, path) for path in error.problems}
        assert same(config_of(run, secrets=secrets), config)


def test_a_whole_secret_may_be_anything() -> None:
    secret = object()
    run = run_with(TrainConfig(extra={"credentials": {"a": {"b": 1}}, "pat": 1}))
    loaded = config_of(run, secrets={"extra.credentials": secret})
    assert loaded.extra == {"credentials": secret, "pat": 1}


def test_unknown_secrets_are_refused_by_name() -> None:
    run = run_with(TrainConfig(extra={"api_key": "x", "list": [{"token": "y"}]}))
    given = {"extra.api_key": "x", "extra.list[].token": S, "epochs": S}
    problems = problems_of(run, secrets=given)
    assert problems.keys() == {"extra.list[].token", "epochs", "extra.list[0].token"}
    assert "was not redacted; redacted: extra.api_key, extra.list[0].token" in problems["epochs"]
    assert S not in str(problems)
    plain = problems_of(run_with(TrainConfig()), secrets={"epochs": 1})
    assert plain == {"epochs": "is in `secrets`, but was not redacted; redacted: nothing"}


def test_a_path_of_two_secrets_is_refused() -> None:
    run = run_with(TrainConfig(extra={"a.b": {"token": "x"}, "a": {"b": {"token": "y"}}}))
    problems = problems_of(run, secrets={"extra.a.b.token": "x"})
    assert "several" in problems["extra.a.b.token"]


def test_a_secret_inside_may_be_anything() -> None:
    secret = object()
    run = run_with(TrainConfig(extra={"list": [{"token": "x"}, (1,)]}))
    loaded = config_of(run, secrets={"extra.list[0].token": secret})
    assert loaded.extra == {"list": [{"token": secret}, (1,)]}


def test_pydantic_models_are_read_back_with_their_secrets() -> None:
    cls = make_dataclass("urls", [("paths", list[Path]), ("levels", dict[Color, list[Path]])])
    config = cls(
        [Path("/ok"), Path(f"https:/u:{S}@h")], {Color.RED: [Path(f"https:/u:{S}@h/2"), Path("x")]}
    )
    run = run_with(config)
    given = {
        "paths[1]": config.paths[1],
        "levels.red[0]": config.levels[Color.RED][0],
    }
    assert problems_of(run, cls).keys() == given.keys()
    assert same(config_of(run, cls, secrets=given), config)


def test_fields_apart_have_their_secrets() -> None:
    cls = make_dataclass("apart", [("größe", int), ("नाम", dict[str, str]), ("नाम_token", str)])
    config = cls(1, {"api_key": S, "a": "b"}, S)
    run = run_with(config)
    given = {"नाम.api_key": S, "नाम_token": S}
    assert problems_of(run, cls).keys() == given.keys()
    assert same(config_of(run, cls, secrets=given), config)


def test_a_text_that_looks_like_a_secrets_mark() -> None:
    config = TrainConfig('{"$redacted"', extra={"$redacted": None, "a": {"$redacted": 1}})  # type: ignore[arg-type]  # breaks its annotation
    assert same(config_of(run_with(config)), config)


def test_values_logged_only_as_text_are_listed() -> None:
    config = TrainConfig(extra={"fn": lambda: 0, "list": [object(), {"password": S}], "token": S})
    problems = problems_of(run_with(config))
    assert problems.keys() == {
        "extra.fn", "extra.list[0]", "extra.list[1].password", "extra.token"
    }  # fmt: skip
    assert "define it at the top of a module" in problems["extra.fn"]
    assert "overrides={'extra.list[0]': ...}" in problems["extra.list[0]"]


# -- classes that have changed since ---------------------------------------------------------------


def net(*members: Any, **options: Any) -> Any:
    """A class that is called `Net` whatever its fields."""
    return make_dataclass("Net", members, **options)


def test_fields_added_since_take_their_defaults(caplog: pytest.LogCaptureFixture) -> None:
    old = net(("a", int, 1))
    new = net(("a", int, 1), ("b", list[int], field(default_factory=lambda: [2])), ("c", str, "x"))
    assert config_of(run_with(old(5)), new) == new(5, [2], "x")
    (message,) = caplog.messages
    assert "b is new since the run" in message
    assert "c is new since the run" in message
    needy = net(("a", int), ("b", int))
    assert "no default" in problems_of(run_with(old(5)), needy)["b"]


def test_a_field_added_later_gets_its_default() -> None:
    def post_init(self: Any) -> None:
        self.a += 1
        self.total = self.a * 10 if self.total is None else self.total

    members = [("total", Any, None), ("made", int, field(init=False, default=0))]
    new = net(("a", int, 1), *members, namespace={"__post_init__": post_init})
    loaded = config_of(run_with(net(("a", int, 1))(5)), new)
    assert (loaded.a, loaded.total) == (5, 60)

    def refuse(self: Any) -> None:
        raise ValueError("never")

    strict = net(("a", int, 1), ("b", list[int], field(default_factory=list)),
                 namespace={"__post_init__": refuse}, slots=True)  # fmt: skip
    loaded = config_of(run_with(net(("a", int, 1))(5)), strict)
    assert (loaded.a, loaded.b) == (5, [])


def test_fields_dropped_since_are_named(caplog: pytest.LogCaptureFixture) -> None:
    old = net(("a", int, 1), ("b", Any, None), ("c", Any, None))
    run = run_with(old(5, {"x": 1, "token": "s"}, Lora()))
    new = net(("a", int, 1))
    problems = problems_of(run, new)
    assert problems.keys() == {"b", "c"}
    assert "allow_unknown=True" in problems["b"]
    assert caplog.messages == []
    assert config_of(run, new, allow_unknown=True) == new(5)
    assert "b is no longer a field of its class, and is left out" in caplog.text


OLD_LAYER = make_dataclass("Layer", [("size", int), ("gone", int, 0)])
NEW_LAYER = make_dataclass("Layer", [("size", int), ("new", int, 7)])
NEEDY_LAYER = make_dataclass("Layer", [("size", int), ("gone", int), ("needed", int)])


@pytest.mark.parametrize(
    ("hint", "make"),
    [
        (lambda layer: layer, lambda layer: layer(3)),
        (lambda layer: layer | None, lambda layer: layer(3)),
        (lambda layer: GenericAlias(list, layer), lambda layer: [layer(3), layer(4)]),
        (
            lambda layer: GenericAlias(dict, (str, layer)),
            lambda layer: {"x": layer(3), "y": layer(4)},
        ),
        (
            lambda layer: GenericAlias(dict, (str, GenericAlias(list, layer))),
            lambda layer: {"x": [layer(3)]},
        ),
        (lambda layer: GenericAlias(tuple, (layer, int)), lambda layer: (layer(3), 4)),
    ],
    ids=["one", "optional", "list", "dict", "dict of lists", "tuple"],
)
def test_nested_classes_may_change_as_well(
    hint: Any, make: Any, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_with(net(("layers", hint(OLD_LAYER)))(make(OLD_LAYER)))
    new = net(("layers", hint(NEW_LAYER)))
    for reason in problems_of(run, new).values():
        assert "gone" in reason
        assert "allow_unknown=True" in reason
    assert config_of(run, new, allow_unknown=True) == new(make(NEW_LAYER))
    assert "gone is no longer a field of its class, and is left out" in caplog.text
    assert "new is new since the run, and takes its default" in caplog.text
    for reason in problems_of(run, net(("layers", hint(NEEDY_LAYER))), allow_unknown=True).values():
        assert "needed" in reason


def test_a_type_that_changes_the_value_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    def typed(numbers: Any, path: Any, pairs: Any) -> Any:
        members = [("numbers", numbers, ()), ("path", path, ""), ("pairs", pairs, ())]
        return make_dataclass("Typed", members)

    was = typed(tuple[int, ...], str, frozenset[tuple[str, int]])
    config = was((1, 1, 2), "a//b", frozenset({("a", 1), ("b", 2), ("c", 3)}))
    run = run_with(config)
    assert same(config_of(run, was), config)
    assert caplog.messages == []
    now = typed(set[int], Path, frozenset[tuple[str, float]])
    found = config_of(run, now)
    assert (found.numbers, found.path) == ({1, 2}, Path("a/b"))
    (message,) = caplog.messages
    for path in ("numbers", "path", "pairs[][]"):
        assert f"{path} is not read as it was logged" in message


def test_an_enum_that_lost_its_member_is_named() -> None:
    params, tags = params_and_tags(TrainConfig(extra={"color": Color.ONE}))
    gone = {key: text.replace('"ONE"', '"GONE"') for key, text in params.items()}
    assert gone != params
    reason = problems_of(log_again(gone, tags))["extra.color"]
    assert reason == "needs configs:Color, which has no 'GONE'"


def test_the_strict_reader_sees_such_a_change_too() -> None:
    old, new = (net(("layers", GenericAlias(list, layer))) for layer in (OLD_LAYER, NEW_LAYER))
    with pytest.raises(ConfigError, match="missing or unknown fields: gone, new"):
        config_from_params(config_to_params(old([OLD_LAYER(3)])), new)


@dataclass
class Growing:
    a: int = 1


def test_classes_named_in_the_params_may_change_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(extra={"one": Growing(2), "many": [(Growing(3),)]})
    run = run_with(config)
    grown = make_dataclass("Growing", [("a", int, 1), ("b", int, 5)])
    grown.__module__ = __name__
    monkeypatch.setitem(globals(), "Growing", grown)
    assert config_of(run).extra == {"one": grown(2, 5), "many": [(grown(3, 5),)]}
    shrunk = make_dataclass("Growing", [("z", int, 0)])
    shrunk.__module__ = __name__
    monkeypatch.setitem(globals(), "Growing", shrunk)
    assert problems_of(run).keys() == {"extra.one", "extra.many"}
    loaded = config_of(run, allow_unknown=True)
    assert loaded.extra == {"one": shrunk(), "many": [(shrunk(),)]}


# -- runs of other tools ---------------------------------------------------------------------------


@dataclass
class Tuned(TrainConfig):
    fp16: bool = False
    resume: str | None = "x"
    warmup: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    report_to: list[str] = field(default_factory=list)
    data: Path = Path()
    color: Color = Color.RED
    lora: Lora = field(default_factory=Lora)
    token: bool | str = False
    seed: int | None = None
    ratio: float = 1.0
    steps: int = 0
    limits: dict[str, int] = field(default_factory=dict)


FOREIGN = {
    "epochs": "3.0",
    "learning_rate": "1e-05",
    "output_dir": "None",
    "fp16": "True",
    "resume": "None",
    "warmup": "0",
    "betas": "(0.9, 0.95)",
    "report_to": "['mlflow', 'none']",
    "data": "/data/x",
    "color": "1",
    "lora/r": "16",
    "lora.targets": "['q']",
    "lora.bias": "none",
    "lora": "LoraConfig(...)",
    "extra/a/b": "[1, 2]",
    "extra.c": "text",
    "token": "True",
    "seed": "None",
    "ratio": "nan",
    "steps": "many",
    "limits": '{"a": 1}',
    "adam_epsilon": "1e-08",
}


def test_a_run_of_another_tool_is_a_best_effort(
    sqlite_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = log_to(sqlite_uri, FOREIGN, {"mlflow.source.name": "train.py"})
    loaded = load_config(run_id, Tuned, tracking_uri=sqlite_uri)
    assert same(
        loaded,
        Tuned(
            epochs=3,
            learning_rate=1e-5,
            output_dir="None",
            extra={"a": {"b": [1, 2]}, "c": "text"},
            fp16=True,
            resume=None,
            betas=(0.9, 0.95),
            report_to=["mlflow", "none"],
            data=Path("/data/x"),
            color=Color.ONE,
            lora=Lora(16, targets=("q",)),
            token=True,
            ratio=float("nan"),
            limits={"a": 1},
        ),
    )
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    message = record.getMessage()
    assert "another tool" in message
    assert "best effort" in message
    defaulted = message.partition("; left at their defaults: ")[2].partition(";")[0]
    assert set(defaulted.split(", ")) == {"batch_size", "lora.alpha"}
    assert "unreadable and left at their defaults: steps" in message
    for ignored in ("adam_epsilon", "lora.bias"):
        assert ignored in message.partition("of no field and ignored: ")[2]
    assert "lora/r" in message.partition("taken: ")[2]


def test_what_another_tool_has_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    needy = make_dataclass("needy", [("a", int), ("b", int), ("c", Lora)])
    problems = problems_of(as_stored({"b": "text", "c.r": "1"}), needy)
    assert problems.keys() == {"a", "b"}
    assert "is missing" in problems["a"]
    assert "does not fit" in problems["b"]
    assert config_of(as_stored({"epochs": "2"})) == TrainConfig(epochs=2)
    assert "secrets" in problems_of(as_stored({}), secrets={"a": S})["a"]

    def refuse(self: Any) -> None:
        raise ValueError(f"password={S}")

    strict = make_dataclass("strict", [("a", int, 1)], namespace={"__post_init__": refuse})
    assert problems_of(as_stored({}), strict) == {"the config": "ValueError: password=[redacted]"}
    hostile = "[" * 50_000
    assert config_of(as_stored({"output_dir": hostile})).output_dir == hostile
    nested = config_of(as_stored({"epochs.a": "1", "extra.x": "[" * 999, "a/../b": "2"}))
    assert nested == TrainConfig(extra={"x": "[" * 999})
