"""A config comes back identical from its params, or is refused; no two configs share params."""

import json
import math
import posixpath
import re
import sys
import uuid
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, make_dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from functools import partial
from pathlib import Path, PureWindowsPath
from time import process_time
from typing import Any, NewType
from unittest.mock import MagicMock, Mock
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from configs import (
    Client,
    Color,
    Config,
    DeepLora,
    Doubling,
    Frozen,
    Level,
    Login,
    Lora,
    Mode,
    Perm,
    Point,
    Secretive,
    Strict,
    Undecorated,
    WithInitVar,
    class_members,
    class_of,
    configs,
    texts,
    thorough,
    trees,
)
from orbiter.train.trainer import TrainConfig
from orbiter_mlflow.config.codec.equality import same
from orbiter_mlflow.config.codec.json_text import is_json, parse, to_text
from orbiter_mlflow.config.encoding import (
    EncodedConfig,
    config_from_params,
    config_to_params,
    encode_config,
    join_values,
    own_params,
    params_digest,
    split_value,
)
from orbiter_mlflow.errors import ConfigError
from orbiter_mlflow.redaction.redactor import Redactor


def roundtrip(config: Any) -> dict[str, str]:
    encoded = encode_config(config)
    assert (encoded.unencodable, encoded.redacted) == ({}, ())
    back = config_from_params(encoded.params, type(config))
    assert same(back, config), encoded.params
    legal(encoded)
    return encoded.params


def legal(encoded: EncodedConfig) -> None:
    for key, value in encoded.params.items():
        assert re.fullmatch(r"[/\w.\- :]*", key)
        assert len(key) <= 250
        assert posixpath.normpath(key) == key
        assert type(value) is str
        assert len(value) <= 6000
        assert "\0" not in value
        value.encode()


def extra(value: Any) -> dict[str, str]:
    params = roundtrip(TrainConfig(extra={"v": value}))
    return {key: text for key, text in params.items() if key.startswith("extra")}


def kept_as_text(value: Any) -> str:
    encoded = encode_config(TrainConfig(extra={"v": value, "w": 1}))
    assert {path.partition("[")[0] for path in encoded.unencodable} == {"extra.v"}
    assert encoded.params["extra.w"] == "1"
    legal(encoded)
    with pytest.raises(ConfigError) as caught:
        config_from_params(encoded.params, TrainConfig)
    assert list(caught.value.problems) == ["extra.v"]
    return encoded.params["extra.v"]


# -- texts and keys -------------------------------------------------------------------------------


def test_plain_values_have_plain_text() -> None:
    config = TrainConfig(3, 8, 1e-5, "runs/a", {"algo": "grpo", "lora": {"r": 8}, "on": True})
    assert config_to_params(config) == {
        "epochs": "3",
        "batch_size": "8",
        "learning_rate": "1e-05",
        "output_dir": "runs/a",
        "extra.algo": "grpo",
        "extra.lora.r": "8",
        "extra.on": "true",
    }
    roundtrip(config)


def test_typed_fields_have_plain_text() -> None:
    params = roundtrip(
        Config(
            maybe=Lora(4),
            color=Color.ONE,
            level=Level.HIGH,
            names={"b", "a"},
            paths={"a": Path("/a")},
            loras=[Lora(1)],
            by_epoch={1: 0.5},
            shape={"size": (1, 2)},
            seq=[1, 2],
            wait=timedelta(minutes=1),
        )
    )
    assert params["data"] == "/data/x"
    assert params["maybe.r"] == "4"
    assert params["maybe.targets"] == '["q","v"]'
    assert params["either"] == "null"
    assert params["betas"] == "[0.9,0.999]"
    assert params["color"] == "1"
    assert params["level"] == "2"
    assert params["mode"] == "a"
    assert params["exact"] == '"0.10"'
    assert params["wait"] == "PT1M"
    assert params["paths.a"] == "/a"
    assert params["by_epoch"] == '{"1":0.5}'
    assert params["loras"] == '[{"r":1,"alpha":0.5,"targets":["q","v"]}]'
    assert params["shape.size"] == "[1,2]"
    assert params["seq"] == "[1,2]"
    assert params["frozen.path"] == "/data"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(
            ("x", "x"),
            ("1", '"1"'),
            ("true", '"true"'),
            ("", '""'),
            ("NaN", "NaN"),
            (" 1 ", '" 1 "'),
        ),
        *(
            ("null", '"null"'),
            (" ", " "),
            ("[1", "[1"),
            ('"x"', '"\\"x\\""'),
            ("a\0", '"a\\u0000"'),
        ),
        *(("\ud800", '"\\ud800"'), ("é\n", "é\n"), ("1e5", '"1e5"'), ("Infinity", "Infinity")),
        *((1, "1"), (1.0, "1.0"), (-0.0, "-0.0"), (True, "true"), (None, "null"), (1e16, "1e+16")),
        *(([], "[]"), ({}, "{}"), ([1, "é"], '[1,"é"]'), ([{"b": 1, "a": 2}], '[{"b":1,"a":2}]')),
        ((1, 2), '{"$tuple":[1,2]}'),
        ({2, 1}, '{"$set":[1,2]}'),
        (frozenset(), '{"$frozenset":[]}'),
        (b"\x00", '{"$bytes":"AA=="}'),
        (bytearray(b"a"), '{"$bytearray":"YQ=="}'),
        (math.nan, '{"$float":"nan"}'),
        (-math.inf, '{"$float":"-inf"}'),
        (Path("/x"), '{"$path":["PosixPath","/x"]}'),
        (PureWindowsPath("c:/x"), '{"$path":["PureWindowsPath","c:\\\\x"]}'),
        (Mode.FAST, '{"$enum":["configs:Mode","FAST"]}'),
        (Perm.R | Perm.W, '{"$enum":["configs:Perm",3]}'),
        (date(2024, 1, 2), '{"$date":"2024-01-02"}'),
        (datetime(2024, 1, 2, tzinfo=UTC), '{"$datetime":"2024-01-02T00:00:00+00:00"}'),
        (time(1, 2), '{"$time":"01:02:00"}'),
        (timedelta(days=-1), '{"$timedelta":[-1,0,0]}'),
        (Decimal("1.50"), '{"$decimal":"1.50"}'),
        (uuid.UUID(int=1), '{"$uuid":"00000000-0000-0000-0000-000000000001"}'),
        (complex(-0.0, 1), '{"$complex":[-0.0,1.0]}'),
        (np.float32(0.1), '{"$numpy":["<f4",0.10000000149011612]}'),
        (np.int64(3), '{"$numpy":["<i8",3]}'),
        (np.bool_(True), '{"$numpy":["|b1",true]}'),
        (np.datetime64("2024-01-01"), '{"$numpy":["<M8[D]",19723]}'),
        ({1: "a"}, '{"$dict":[[1,"a"]]}'),
        ({"$tuple": [1]}, '{"$dict":[["$tuple",[1]]]}'),
        ({"b.c": 1}, '{"b.c":1}'),
        ("\ud83d\ude00", '{"$str":["\\ud83d","\\ude00"]}'),
        (Point(1.0), '{"$namedtuple":"configs:Point","x":1.0,"y":null}'),
        ([Lora(1)], None),
        (datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1), None),
        (datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=1), "CET")), None),
        (time(1, tzinfo=timezone(timedelta(hours=-1)), fold=1), None),
        (Decimal("sNaN"), '{"$decimal":"sNaN"}'),
        ({None: {frozenset({1}): (2,)}, 1.5: 1, (1,): {}}, None),
        ({math.nan: 1}, None),
    ],
)
def test_text_of_a_value(value: Any, text: str | None) -> None:
    params = extra(value)
    if text is not None:
        assert params == {"extra.v": text}


def test_an_int_of_any_length() -> None:
    assert join_values(extra(1 << 30_000))["extra.v"].startswith('{"$int":"0x1000')


def test_keys_that_are_no_plain_words_stay_in_their_parent() -> None:
    config = TrainConfig(extra={"a": 1, "b.c": 2, "": {"x": 3}, "d": {"e f": (1,), "g": 1}, "/": 1})
    params = roundtrip(config)
    assert params["extra"] == '{"b.c":2,"":{"x":3},"/":1}'
    assert params["extra.a"] == "1"
    assert params["extra.d"] == '{"e f":{"$tuple":[1]}}'
    assert params["extra.d.g"] == "1"
    roundtrip(TrainConfig(extra={1: 1, "1": 2, "a": 3}))  # type: ignore[dict-item]
    roundtrip(TrainConfig(extra={"$type": 1, "a": 3}))
    roundtrip(TrainConfig(extra={"..": 1, "...": {"a": 2}, "a:0": 1, "a": "x" * 7000}))


def test_paths_past_the_limit_stay_in_their_parent() -> None:
    nested: dict[str, Any] = {"end": Lora(), "x": "y" * 7000}
    for _ in range(30):
        nested = {"twelve-chars": nested}
    roundtrip(TrainConfig(extra=nested))
    roundtrip(TrainConfig(extra={"k" * 300: 1, "k" * 234: "v" * 100_000}))
    roundtrip(Config(lora=Lora(), paths={"p" * 240: Path("/x"), "q": Path("/y")}))


def test_a_class_that_the_annotation_does_not_name_is_named_once() -> None:
    params = roundtrip(Config(lora=DeepLora(1), either=Lora(2), extra={"lora": Lora(3)}))
    assert params["lora"] == '{"$type":"configs:DeepLora"}'
    assert params["lora.depth"] == "2"
    assert params["either"] == '{"$type":"configs:Lora"}'
    assert params["extra.lora"] == '{"$type":"configs:Lora"}'
    assert params["extra.lora.r"] == "3"
    assert "maybe.r" not in params


def test_an_annotation_never_coerces() -> None:
    config: Any = Config(
        learning_rate=1,
        data="/as/text",  # type: ignore[arg-type]
        betas=[1, 2],  # type: ignore[arg-type]
        color="red",  # type: ignore[arg-type]
        level=1,  # type: ignore[arg-type]
        flag=1,  # type: ignore[arg-type]
        names=["a"],  # type: ignore[arg-type]
        exact=0.1,  # type: ignore[arg-type]
        lora={"r": 8, "alpha": 0.5, "targets": ("q",)},  # type: ignore[arg-type]
        maybe={},  # type: ignore[arg-type]
        when="2024-01-01",  # type: ignore[arg-type]
        by_epoch={"1": 1, 2: True},  # type: ignore[dict-item]
        point=(1.0, 2),  # type: ignore[arg-type]
        seq=(1, 2),
        epochs=True,
    )
    params = roundtrip(config)
    assert params["learning_rate"] == "1"
    assert params["epochs"] == "true"
    assert params["data"] == '{"$json":"/as/text"}'
    assert params["betas"] == '{"$json":[1,2]}'
    assert params["lora"] == '{"$json":{}}'
    assert params["lora.r"] == "8"
    assert params["maybe"] == '{"$json":{}}'
    roundtrip(Config(mixed={"r": 1}))
    roundtrip(Config(mixed=Lora(1)))
    roundtrip(Config(mixed="Lora"))
    roundtrip(Config(paths={}, loras=[DeepLora()]))


def test_a_post_init_does_not_change_what_was_logged() -> None:
    config = Config(doubling=Doubling(3.0, [1]))
    assert (config.doubling.lr, config.doubling.layers, config.doubling.derived) == (6.0, [1, 9], 2)
    roundtrip(config)
    strict = Strict()
    strict.low = 5
    roundtrip(TrainConfig(extra={"a": WithInitVar(3), "b": [WithInitVar(3)], "strict": strict}))


@dataclass
class Rewriting(TrainConfig):
    given: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.given.append(1)
        self.output_dir = "changed"


def test_the_root_may_have_a_post_init_and_no_decorator() -> None:
    roundtrip(Rewriting(given=[3]))
    config = Undecorated(epochs=2)
    config.later = 1  # type: ignore[attr-defined]
    assert type(config_from_params(config_to_params(config), Undecorated)) is Undecorated


def test_names_of_fields_may_be_any_identifier() -> None:
    odd = make_dataclass(
        "odd",
        [
            *(("größe", int, 1), ("नाम", Any, (1,)), ("x" * 300, str, "long")),
            ("mod", Lora, field(default_factory=Lora)),
        ],
    )
    params = roundtrip(odd())
    assert params["größe"] == "1"
    assert set(params) == {"größe", ":root", "mod.r", "mod.alpha", "mod.targets"}
    encoded = encode_config(odd())
    assert own_params({**encoded.params, "other": "1"}, encoded.fields) == encoded.params


def test_annotations_that_cannot_be_resolved_count_as_any() -> None:
    broken = make_dataclass(
        "broken", [("a", "Missing", (1,)), ("b", "Path | None", Path("/x")), ("c", "int", 1)]
    )
    broken.__module__ = __name__
    params = roundtrip(broken())
    assert params == {"a": '{"$tuple":[1]}', "b": "/x", "c": "1"}


UserId = NewType("UserId", int)


@dataclass
class Odd:
    callback: Callable[[], None] | str | None = None
    user: UserId = UserId(1)
    anything: object = None
    raw: "re.Pattern[str] | None" = None
    mapping: Mapping[str, Any] = field(default_factory=dict)
    many: Iterator[int] | None = None


def test_annotations_that_pydantic_does_not_know_do_no_harm() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        params = roundtrip(Odd("x", UserId(3), [1], re.compile("a+"), {"a": 1}))
    assert params == {
        "callback": "x",
        "user": "3",
        "anything": "[1]",
        "raw": "a+",
        "mapping.a": "1",
        "many": "null",
    }


def test_an_iterator_is_not_used_up() -> None:
    config = Odd(many=iter([1, 2]))
    assert [*encode_config(config).unencodable] == ["many"]
    assert config.many is not None
    assert list(config.many) == [1, 2]


# -- values that cannot come back -----------------------------------------------------------------


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no eq")

    __hash__ = None  # type: ignore[assignment]


class Number(int):
    pass


class Text(str):
    __slots__ = ()


def cyclic() -> list[Any]:
    items: list[Any] = [1]
    items += [items, items]
    return items


def deep(levels: int, make: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = make(value)
    return value


@pytest.mark.parametrize(
    "value",
    [
        *(object(), Hostile(), [Hostile()], Number(3), Text("x"), OrderedDict(a=object())),
        *(cyclic(), lambda: 0, np.zeros(2_000), {1, Number(2)}, {"k v": object()}),
        *(iter([]), deque([object()]), [].append, partial(lambda: 0)),
        deep(1_000, lambda inner: [inner]),
        deep(1_000, lambda inner: (inner,)),
        deep(1_000, lambda inner: {"b.c": inner}),
        deep(1_000, lambda inner: {1: inner}),
        deep(1_000, lambda inner: Frozen(inner=inner) if inner else inner),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_that_cannot_come_back_is_kept_as_text_and_refused(value: Any) -> None:
    encoded = encode_config(TrainConfig(extra={"v": value, "w": 1}))
    legal(encoded)
    assert encoded.unencodable
    assert encoded.params["extra.w"] == "1"
    with pytest.raises(ConfigError):
        config_from_params(encoded.params, TrainConfig)


class BareList(list[str]):
    pass


class BrokenList(list[int]):
    def __iter__(self) -> Iterator[int]:
        raise RuntimeError("no items")


def test_one_bad_value_costs_none_of_its_neighbours() -> None:
    for value in (BrokenList(), Mock(spec=dict), Mock(spec=Lora), MagicMock(spec=Color)):
        kept_as_text(value)


def test_deep_and_cyclic_dicts_are_cut_off() -> None:
    loop: dict[str, Any] = {"a": 1}
    loop["left"] = loop["right"] = loop
    for nested in (loop, deep(1_000, lambda inner: {"k": inner})):
        encoded = encode_config(TrainConfig(extra=nested))
        legal(encoded)
        assert encoded.unencodable
    roundtrip(TrainConfig(extra=deep(25, lambda inner: {"k": [inner]})))


def test_a_text_is_bounded_says_so_and_has_no_memory_address() -> None:
    class Local:
        pass

    assert "0x" not in kept_as_text(Local())
    long, other = (kept_as_text(BareList("x" * 9_000 + end)) for end in "ab")
    assert len(long) < 6_000
    assert " characters)" in long
    assert long != other


def test_local_classes_need_an_annotation_that_names_them() -> None:
    @dataclass
    class Local:
        a: int = 1

    class Kind(Enum):
        A = 1

    assert "a" in kept_as_text(Local())
    kept_as_text([Local()])
    kept_as_text(Kind.A)
    members = [("one", Local), ("many", list[Local]), ("kind", Kind)]
    named = make_dataclass("named", members)
    params = roundtrip(named(Local(), [Local()], Kind.A))
    assert params == {"one.a": "1", "many": '[{"a":1}]', "kind": "1"}


def test_a_class_is_never_imported() -> None:
    params = config_to_params(TrainConfig(extra={"lora": Lora()}))
    params["extra.lora"] = '{"$type":"antigravity:Lora"}'
    with pytest.raises(ConfigError, match="import antigravity first"):
        config_from_params(params, TrainConfig)
    assert "antigravity" not in sys.modules


def test_a_property_that_raises_affects_only_its_own_field() -> None:
    def raising(self: Any) -> int:
        raise RuntimeError("secret inside")

    odd: Any = make_dataclass("odd", [("a", int, 1), ("b", int, 2)])
    odd.b = property(raising, lambda self, value: None)
    encoded = encode_config(odd())
    assert encoded.params["a"] == "1"
    assert encoded.params["b"].startswith('{"$text":"<could not be read: RuntimeError>"')
    assert [*encoded.unencodable] == ["b"]
    unset = TrainConfig()
    del unset.output_dir
    assert [*encode_config(unset).unencodable] == ["output_dir"]


def test_an_equality_that_lies_is_not_believed() -> None:
    @dataclass(eq=False)
    class Yes:
        a: Any = 1

        def __eq__(self, other: object) -> bool:
            return True

    assert not same(Yes(1), Yes(2))
    assert not same(Yes(1), Yes(True))


def test_a_deep_stack_does_not_make_encoding_raise() -> None:
    def down(levels: int) -> EncodedConfig:
        return encode_config(Config(extra={"a": [{"b": 1}]})) if not levels else down(levels - 1)

    frame: Any = sys._getframe()
    depth = 0
    while frame:
        depth, frame = depth + 1, frame.f_back
    room = sys.getrecursionlimit() - depth
    for left in (60, 90, 120, 200):
        encoded = down(room - left)
        legal(encoded)
        if not encoded.unencodable and not encoded.redacted:
            assert encoded.params == config_to_params(Config(extra={"a": [{"b": 1}]}))


# -- secrets --------------------------------------------------------------------------------------


def test_no_secret_is_in_the_params() -> None:
    s = "hunter2-XYZZY"
    config = Secretive(
        output_dir=f"s3://user:{s}@bucket/x",
        hf_token=s,
        client=Client(api_key=s),
        clients=[Client(f"https://u:{s}@h"), Client(api_key=s)],
        login=Login("bob", s),
        secrets={s: s, "deep": {"x": s}},
        use_auth_token=s,
        headers={"Authorization": f"Bearer {s}", "X-Ok": "yes", "x y": f"api_key={s}"},
        extra={
            "list": [{"password": s}, {"a": ({"api_key": s},)}],
            "argv": ["--lr", "1", "--api-key", s],
            "pairs": {1: 2, "db_password": s},
            "odd.key": {"token": s},
            "bytes": f"password={s}".encode(),
            "object": type("Repr", (), {"__repr__": lambda self: f"Repr(token={s!r})"})(),
            "inside": OrderedDict(secret=s),
            "keys": {f"https://u:{s}@h": 1},
            "private": f"-----BEGIN PRIVATE KEY-----{s}",
            "set": {Login("bob", s)},
            "max_tokens": 5,
            "tokenizer_name": "gpt2",
            "token": None,
            "password": "",
        },
    )
    encoded = encode_config(config)
    legal(encoded)
    assert s not in str(encoded)
    assert encoded.params["hf_token"] == '{"$redacted":null}'
    assert encoded.params["output_dir"] == '{"$redacted":"s3://[redacted]@bucket/x"}'
    assert encoded.params["client.api_key"] == '{"$redacted":null}'
    assert encoded.params["client.url"] == "https://host"
    assert encoded.params["secrets"] == '{"$redacted":null}'
    assert encoded.params["headers.X-Ok"] == "yes"
    assert encoded.params["extra.max_tokens"] == "5"
    assert encoded.params["extra.tokenizer_name"] == "gpt2"
    assert encoded.params["extra.token"] == "null"
    assert encoded.params["extra.password"] == '""'
    assert "--lr" in encoded.params["extra.argv"]
    assert {"hf_token", "output_dir", "client.api_key", "clients[].url", "login.password"} <= set(
        encoded.redacted
    )
    with pytest.raises(ConfigError) as caught:
        config_from_params(encoded.params, Secretive)
    assert s not in str(caught.value)
    assert {"hf_token", "output_dir", "client.api_key", "clients"} <= set(caught.value.problems)


def test_a_value_with_the_name_of_a_secret_may_be_harmless() -> None:
    config = Secretive(use_auth_token=True, extra={"api_key": None, "auth": False, "cookies": []})
    roundtrip(config)


def test_a_key_that_is_a_secret_redacts_its_parent() -> None:
    key = "hf_" + "AbCd0123" * 4
    encoded = encode_config(TrainConfig(extra={"keys": {key: 1}, "other": [{key: 1}]}))
    assert key not in str(encoded)
    assert encoded.redacted == ("extra.keys", "extra.other[]")


def test_more_names_of_secrets_can_be_given() -> None:
    params = config_to_params(TrainConfig(extra={"mine": {"host": "x"}}), redact=["MI*"])
    assert params["extra.mine"] == '{"$redacted":null}'
    assert "extra.mine.host" not in params
    assert encode_config(TrainConfig(), Redactor(("epochs",))).redacted == ("epochs",)


# -- reading --------------------------------------------------------------------------------------


def test_one_error_names_everything_that_is_wrong() -> None:
    params = config_to_params(Config(extra={"api_key": "x", "o": object(), "lora": Lora()}))
    del params["epochs"], params["lora.r"]
    params["betas"] = "[1,"
    params["color"] = "blue-secret"
    params["other"] = "1"
    params["extra.lora.zzz"] = "1"
    params["data"] = '{"$path":["Popen","x"]}'
    params["level"] = '{"$unheard":1}'
    params["wait"] = '{"$timedelta":["a"]}'
    params["output_dir:0"] = "x"
    params["doubling"] = '{"$enum":["os:system","x"]}'
    params["batch_size"] = "9" * 5000
    with pytest.raises(ConfigError) as caught:
        config_from_params(params, Config)
    assert set(caught.value.problems) == {
        *("epochs", "lora", "betas", "color", "other", "extra.lora", "extra.api_key", "extra.o"),
        *("data", "level", "wait", "output_dir", "doubling", "batch_size"),
    }
    assert "blue-secret" not in str(caught.value)
    assert "is missing" in str(caught.value)
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, ValueError)


def test_only_dataclasses_are_encoded() -> None:
    with pytest.raises(TypeError):
        encode_config({"a": 1})
    with pytest.raises(TypeError):
        encode_config(TrainConfig)
    with pytest.raises(TypeError):
        config_from_params({}, dict)


def test_the_digest_tells_configs_apart_and_ignores_the_order_of_params() -> None:
    one, two = encode_config(TrainConfig()), encode_config(TrainConfig(epochs=2))
    assert one.digest == encode_config(TrainConfig()).digest != two.digest
    assert one.digest == params_digest(dict(reversed(one.params.items())))
    assert re.fullmatch("[0-9a-f]{64}", one.digest)
    assert one.fields == ("epochs", "batch_size", "learning_rate", "output_dir", "extra")


@given(st.text(max_size=1000), st.integers(100, 150))
@thorough
def test_long_values_are_split_and_joined(text: str, limit: int) -> None:
    pieces = split_value("a.b", text, limit)
    assert all(len(piece) <= limit for piece in pieces.values())
    assert join_values({**pieces, "c": "1"}) == {"a.b": text, "c": "1"}
    for key in pieces:
        if len(pieces) > 1:
            with pytest.raises(ConfigError, match="missing"):
                join_values({other: text for other, text in pieces.items() if other != key})


@pytest.mark.parametrize("length", [5999, 6000, 6001, 12_000, 18_000, 100_000])
def test_long_values_come_back(length: int) -> None:
    params = roundtrip(TrainConfig(output_dir="x" * length, extra={"l": ["y" * length]}))
    assert ("output_dir" in params) == (length <= 6000)
    assert ("output_dir:0" in params) == (length > 6000)


# -- properties -----------------------------------------------------------------------------------

plain_redactor = Redactor()


def comes_back(config: Any) -> EncodedConfig:
    encoded = encode_config(config)
    legal(encoded)
    assert encoded.unencodable == {}
    if not encoded.redacted:
        assert same(config_from_params(encoded.params, type(config)), config)
    return encoded


@given(st.dictionaries(texts, trees, max_size=5))
@thorough
def test_any_extra_comes_back(given_extra: dict[str, Any]) -> None:
    comes_back(TrainConfig(extra=given_extra))


@given(configs)
@settings(thorough, max_examples=50)
def test_any_config_comes_back_whatever_its_annotations_say(config: Config) -> None:
    comes_back(config)


@given(configs, configs)
@settings(thorough, max_examples=40)
def test_distinct_configs_have_distinct_params(one: Config, two: Config) -> None:
    equal_params = config_to_params(one) == config_to_params(two)
    assert equal_params == same(one, two)


@given(
    class_members,
    st.booleans(),
    st.booleans(),
    st.booleans(),
)
@thorough
def test_any_class_comes_back(
    members: list[tuple[Any, Any, Any]], frozen: bool, slots: bool, inherits: bool
) -> None:
    cls = class_of(members, frozen=frozen, slots=slots, inherits=inherits)
    one = cls(*(value for _, value, _ in members))
    two = cls(*(value for _, _, value in members))
    first, second = comes_back(one), comes_back(two)
    assert (first.params == second.params) == same(one, two)


small: st.SearchStrategy[Any] = st.sampled_from(
    [0, 1, True, False, 0.0, -0.0, 1.0, "", "1", "true", None, "null", [], {}, ()]
)
small_trees = st.recursive(
    small,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(
            st.sampled_from(["a", "a.a", "", "$json", "$tuple", "$text"]), inner, max_size=2
        ),
    ),
    max_leaves=4,
)


@given(st.lists(small_trees, min_size=8, max_size=8))
@thorough
def test_values_that_are_nearly_the_same_have_different_params(values: list[Any]) -> None:
    made = [Config(extra={"a": v}, mixed=v, betas=v, data=v, paths=v, lora=v) for v in values]
    params = [config_to_params(config) for config in made]
    for i, one in enumerate(made):
        for j, two in enumerate(made[:i]):
            assert (params[i] == params[j]) == same(one, two)


@given(st.one_of(texts, st.text('[]{}",:0123456789.eE+-truefalsn \t\n', max_size=8)))
@thorough
def test_a_text_is_bare_if_and_only_if_it_is_not_json(text: str) -> None:
    written = to_text(text)
    assert parse(written) == text
    try:
        json.loads(text, parse_constant=lambda _: 1 / 0)
    except (ValueError, ZeroDivisionError):
        assert not is_json(text)
    else:
        assert is_json(text)
    if not is_json(text) and text and text.isprintable():
        assert written == text


@given(trees, trees)
@thorough
def test_sameness_is_an_equivalence(one: Any, two: Any) -> None:
    assert same(one, one)
    assert same(one, two) == same(two, one)


def test_four_hundred_leaves_take_milliseconds() -> None:
    config = Config(
        extra={f"g{i}": {f"k{j}": [i, 0.5, "text"][j % 3] for j in range(20)} for i in range(20)}
    )
    config_to_params(config)
    times = []
    for _ in range(20):
        started = process_time()
        config_to_params(config)
        times.append(process_time() - started)
    assert min(times) < 0.03  # about 4 ms; CI machines are slow
