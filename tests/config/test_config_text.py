"""JSON, YAML and Python give the identical config back, or name what is wrong."""

import json
import re
from dataclasses import dataclass, field, make_dataclass, replace
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from big_configs import OF_EVERY_TYPE, rl_config, wide_config
from configs import Color, Config, DeepLora, Lora, configs, thorough, trees
from orbiter.train import TrainConfig
from orbiter_mlflow import ConfigError, config_from_text, config_to_params
from orbiter_mlflow.config.codec.document import from_document, to_document
from orbiter_mlflow.config.codec.equality import same
from orbiter_mlflow.config.encoding import join_values
from orbiter_mlflow.config.text import json_text, python_text, yaml_text

Form = Literal["json", "yaml"]
FORMS: tuple[Form, Form] = ("json", "yaml")
ACTS_ON_A_TERMINAL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


def texts_of(config: Any) -> dict[Form, str]:
    params = config_to_params(config)
    return {"json": json_text(params), "yaml": yaml_text(params)}


def executed(program: str) -> Any:
    found: dict[str, Any] = {}
    exec(compile(program, "<printed>", "exec"), found)
    return found["config"]


@dataclass
class Outer:
    @dataclass
    class Inner(TrainConfig):
        größe: tuple[int, ...] = (1,)
        by_name: dict[str, Lora] = field(default_factory=dict)


MANY: dict[str, TrainConfig] = {
    "defaults": TrainConfig(),
    "every type": OF_EVERY_TYPE,
    "a large one": TrainConfig(extra=rl_config()),
    "a wide one": wide_config(),
    "nested class": Outer.Inner(größe=(1, 2), by_name={"a": DeepLora(2), "b c": Lora(1)}),
}


@pytest.mark.parametrize("name", MANY)
def test_each_format_gives_the_identical_config(name: str) -> None:
    config = MANY[name]
    for form, text in texts_of(config).items():
        assert same(config_from_text(text, type(config), format=form), config), form
    kind = f"{type(config).__module__}:{type(config).__qualname__}"
    program = python_text(config_to_params(config), kind)
    assert same(executed(program), config)


def test_a_field_whose_name_is_no_key_keeps_its_value() -> None:
    cls = make_dataclass("Long", [("x" * 300, Any, None), ("y", int, 1)])
    config = cls({"a": (1, 2)})
    for form, text in texts_of(config).items():
        assert same(config_from_text(text, cls, format=form), config)


def test_a_program_says_that_it_needs_the_script_with_its_classes() -> None:
    text = python_text(config_to_params(TrainConfig()), "__main__:Mine")
    assert text.startswith("# Put this into the script that was run")
    assert "from __main__ import Mine\n" in text
    enum = '{"$enum":["__main__:Color","RED"]}'
    assert python_text({"extra.color": enum}, "m:C").startswith("# Put this into the script")
    assert not python_text({"extra.color": "red"}, "m:C").startswith("#")


@given(configs)
@settings(thorough, max_examples=40)
def test_any_config_keeps_its_params(config: Config) -> None:
    params = config_to_params(config)
    assert from_document(to_document(params)) == join_values(params)


@given(st.dictionaries(st.text(max_size=6), trees, max_size=4))
@settings(thorough, max_examples=60)
def test_any_extra_keeps_its_params_in_each_format(extra: dict[str, Any]) -> None:
    params = config_to_params(TrainConfig(extra=extra))
    for text in (json_text(params), yaml_text(params)):
        assert not ACTS_ON_A_TERMINAL.search(text)
        text.encode()  # no half of a surrogate pair
    assert from_document(json.loads(json_text(params))) == join_values(params)
    assert from_document(yaml.safe_load(yaml_text(params))) == join_values(params)


def test_the_yaml_reads_well_and_means_the_same_in_yaml_1_1_and_1_2() -> None:
    config = TrainConfig(
        extra={"lora": {"r": 8}, "prompt": "Be brief.\nBe kind.\n", "lr": "1e-05", "on": [1, "off"]}
    )
    params = config_to_params(config)
    assert yaml_text(params, ["learning_rate", "gone", "extra"]) == (
        "learning_rate: 1.0e-05\n"
        "extra:\n"
        "  lora:\n"
        "    r: 8\n"
        "  prompt: |\n"
        "    Be brief.\n"
        "    Be kind.\n"
        '  lr: "1e-05"\n'
        "  'on': [1, 'off']\n"
        "batch_size: 8\n"
        "epochs: 1\n"
        "output_dir: ''\n"
    )


def test_the_json_keeps_short_lists_on_one_line() -> None:
    text = json_text(config_to_params(TrainConfig(extra={"t": (1, 2), "l": list(range(60))})))
    assert '    "t": {"$tuple": [1, 2]},\n' in text
    assert '    "l": [\n      0,\n' in text


def test_the_program_imports_what_the_config_names() -> None:
    params = config_to_params(Outer.Inner(extra={"color": Color.RED, "lora": Lora()}))
    program = python_text(params, "test_config_text:Outer.Inner")
    assert program.startswith(
        "import configs\n"
        "from orbiter_mlflow import config_from_text\n"
        "from test_config_text import Outer\n"
        "\nconfig = config_from_text(r'''{\n"
    )
    assert program.endswith("}\n''', Outer.Inner)\n")


@pytest.mark.parametrize(
    "name", ["", "os", "os:system('x')", "os:a b", "a:f.<locals>.C", "os;x:C", "a:class", "a.:C"]
)
def test_only_the_name_of_a_class_gets_into_a_program(name: str) -> None:
    with pytest.raises(ConfigError, match="no class that can be imported"):
        python_text(config_to_params(TrainConfig()), name)
    for marker in ({"$type": name}, {"$namedtuple": name, "x": 1}, {"$enum": [name, "A"]}):
        with pytest.raises(ConfigError, match="no class that can be imported"):
            python_text({"extra.a": json.dumps(marker)}, "m:C")


def test_an_edited_text_gives_the_edited_config() -> None:
    config = TrainConfig(epochs=1, extra={"lora": {"r": 8}})
    for form, text in texts_of(config).items():
        edited = text.replace("8", "9").replace('"r"', '"rank"').replace("r: 9", "rank: 9")
        expected = replace(config, batch_size=9, extra={"lora": {"rank": 9}})
        assert config_from_text(edited, TrainConfig, format=form) == expected


@pytest.mark.parametrize(
    ("text", "form", "path", "reason"),
    [
        ("{", "json", "the text", "line 1"),
        ("a: [1", "yaml", "the text", "line 1"),
        ("a: !!python/name:os.system x", "yaml", "the text", "line 1"),
        ("[1]", "json", "the text", "not an object"),
        ("", "yaml", "the text", "not an object"),
        ("[" * 100_000, "json", "the text", "RecursionError"),
        ('{"learning_rate": NaN}', "json", "learning_rate", "$float"),
        ("extra: {a: [2024-01-01]}", "yaml", "extra.a[0]", "is a date"),
        ("extra: {1: 2}", "yaml", "extra.1", "no string"),
        ("1: 2", "yaml", "1", "no string"),
        ('{"epochz": 1}', "json", "epochz", "no field"),
        ('{"epochs": {"$what": 1}}', "json", "epochs", "$what"),
        ('{"output_dir": {"$redacted": null}}', "json", "output_dir", "redacted"),
        ('{"output_dir": {"$text": "x"}}', "json", "output_dir", "text only"),
    ],
)
def test_the_error_names_what_is_wrong_with_a_text(
    text: str, form: Form, path: str, reason: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_text(text, TrainConfig, format=form)
    assert reason in caught.value.problems[path]
    assert "TrainConfig" in str(caught.value)


def test_no_message_shows_a_value() -> None:
    text = 'extra: {api_key: "opensesame", when: 2024-01-01'
    for broken in (text, f"{text}}}"):
        with pytest.raises(ConfigError) as caught:
            config_from_text(broken, TrainConfig, format="yaml")
        assert "opensesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"a": "1", "a.b": "2"}, "a"),
        ({"a": '{"b":1}', "a.b": "2"}, "a.b"),
        ({"a": "[" * 100_000}, "a"),
        ({"a:0": "x", "a:2": "y"}, "a"),
    ],
)
def test_params_that_contradict_each_other_are_named(params: dict[str, str], path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        to_document(params)
    assert path in caught.value.problems
