"""Texts from outside: nothing in them acts on a terminal, in XML, or in Markdown."""

import json
import re
import shlex
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from gate_reports import HOSTILE
from orbiter_mlflow.text.escaping import (
    in_json,
    in_shell,
    markdown_code,
    markdown_text,
    message,
    plain,
    web_link,
)
from orbiter_mlflow.text.shortening import shortened

MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])

ANY_TEXT = st.text(
    st.one_of(
        st.sampled_from("\\`*_{}[]()<>#+-.!|~$@&:;/=^\"' \n\r\t\x00\x1b\x9b\u202e\ud800\ufffe0aG"),
        st.characters(exclude_categories=()),
    ),
    max_size=60,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("eval/accuracy", "eval/accuracy"),
        ("two\nlines\tand\r\nmore", "two lines and more"),
        ("\x1b[1;31mred\x1b[0m \x9b2Jgone", "red gone"),
        ("\x1b]8;;http://x\x07link", "\ufffd]8;;http://x\ufffdlink"),
        ("\x00\x08\ud800\ufffe", "\ufffd" * 4),
        ("user\u202etxt.exe\u2066", "user\ufffdtxt.exe\ufffd"),
        ("größe 模型 🎉", "größe 模型 🎉"),
    ],
)
def test_plain_text_is_one_line_without_controls(text: str, shown: str) -> None:
    assert plain(text) == shown


@given(ANY_TEXT)
def test_plain_text_fits_into_xml_and_on_a_line(text: str) -> None:
    shown = plain(text)
    read = ElementTree.tostring(ElementTree.Element("a", name=shown), "unicode")
    assert ElementTree.fromstring(read).attrib["name"] == shown
    assert len(shown.splitlines()) <= 1
    assert plain(shown) == shown
    shown.encode()


def test_a_cut_text_says_so() -> None:
    assert shortened("a" * 37, 5) == "a" * 37
    assert shortened("a" * 38, 5) == "aaaaa... (38 characters)"
    assert shortened(shortened("a" * 10**6, 5), 5) == "aaaaa... (1000000 characters)"


COMMANDS = (
    "::error::x",
    "::add-mask::x",
    "::stop-commands::x",
    "##[error]x",
    "##vso[task.x]y",
    "##teamcity[x]",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_text_is_a_command_of_a_ci_service_wherever_its_line_is_broken(command: str) -> None:
    for text in (command, f"a{command}", f"{command[:2]}{command}", f"a\n{command}"):
        for shown in (plain(text), markdown_text(text), in_shell(text), in_json(json.dumps(text))):
            assert "::" not in shown
            assert not re.search(r"##[\w.]*\[", shown)
        assert json.loads(in_json(json.dumps(text))) == text
        read = shlex.split(in_shell(text))
        assert read == [plain(text).replace("\u2060", "")]


def test_an_address_is_not_a_command() -> None:
    for url in ("http://[::1]:5000/#/runs", "postgresql://u@[fe80::1]/db"):
        assert plain(url) == url
    assert plain("[::error]") == "[:\u2060:error]"


def test_an_html_page_is_named_by_its_title_and_a_long_answer_shortened() -> None:
    page = f"<!DOCTYPE html><html><head><title>Sign in &middot;\n Acme</title>{'x' * 24_000}</html>"
    said = message(f"API request failed. Response body: '{page}'")
    expected = "[an HTML page, not MLflow's answer: Sign in \u00b7 Acme]"
    assert said == f"API request failed. Response body: '{expected}"
    assert message(said) == said
    assert message("<html>") == "[an HTML page, not MLflow's answer: it has no title]"
    assert message("a\n::error::b") == "a :\u2060:error:\u2060:b"
    assert len(message("x" * 24_000)) < 550


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("max_drop = 0.01 (p = 0.5)", "max_drop = 0.01 (p = 0.5)"),
        ("the baseline's 0.8307", "the baseline's 0.8307"),
        ("_x_ a_b", "&#95;x&#95; a_b"),
        ("a|b", "a&#124;b"),
        ("@everyone", "@\u2060everyone"),
        ("fixes #12, GH-12, !12", "fixes #\u206012, GH-\u206012, !\u206012"),
        ("https://x.example", "https:\u2060//x.example"),
        ("www.x.example", "www\u2060.x.example"),
        ("me@x.example", "me@\u2060x.example"),
        (":tada:", ":\u2060tada:"),
        ("$a$", "<span>$</span>a<span>$</span>"),
        ("- item", "&#45; item"),
        ("1. item", "1&#46; item"),
        ("1.5 is more", "1.5 is more"),
        ("/close", "&#47;close"),
        ("  # head", "&#35; head"),
    ],
)
def test_markdown_text(text: str, written: str) -> None:
    assert markdown_text(text) == written


def kinds(markdown: str) -> set[str]:
    """The parts other than text that a Markdown parser finds."""
    tokens = MARKDOWN.parse(markdown)
    inside = [child for token in tokens for child in token.children or []]
    return {token.type for token in [*tokens, *inside]} - {"inline", "text", "text_special"}


@given(ANY_TEXT.map(lambda text: f"x{text}y") | ANY_TEXT)
@settings(max_examples=300)
def test_no_text_is_markup(text: str) -> None:
    written = markdown_text(text).replace("<span>$</span>", "")
    item = {"bullet_list_open", "list_item_open", "bullet_list_close", "list_item_close"}
    paragraph = {"paragraph_open", "paragraph_close"}
    assert kinds(f"- {written}") <= item | paragraph
    assert kinds(f"Reason: {written}") <= paragraph
    assert kinds(f"- {markdown_code(text)} and") == item | paragraph | {"code_inline"}


@given(ANY_TEXT)
def test_a_cell_stays_a_cell(text: str) -> None:
    table = f"| a | b |\n| --- | --- |\n| {markdown_text(text)} | {markdown_code(text)} |\n"
    tokens = MARKDOWN.parse(table)
    assert [token.type for token in tokens].count("td_open") == 2
    assert tokens[-1].type == "table_close"


def test_a_code_span_shows_its_content() -> None:
    assert markdown_code("eval/accuracy") == "`eval/accuracy`"
    assert markdown_code("a`b|c") == "`a\u02cbb\u00a6c`"
    assert markdown_code(" \n") == "`(empty)`"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        (
            "http://127.0.0.1:5000/#/runs?a=%5B1%5D&b=2",
            "http://127.0.0.1:5000/#/runs?a=%5B1%5D&b=2",
        ),
        ("https://[::1]/x y", "https://[::1]/x%20y"),
        ('http://x/"><script>', "http://x/%22%3E%3Cscript%3E"),
        ("http://x/\x1b]8;;\x07", "http://x/%1B]8;;%07"),
        ("javascript:alert(1)", None),
        ("file:///etc/passwd", None),
        ("sqlite:///mlflow.db", None),
        ("http://[", None),
        ("", None),
        (HOSTILE, None),
    ],
)
def test_only_addresses_of_the_web_become_links(url: str, address: str | None) -> None:
    assert web_link(url) == address
