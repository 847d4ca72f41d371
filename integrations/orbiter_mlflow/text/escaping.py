"""Escape text that others wrote (names, params, error messages) for the place where it is shown.

It is shown as text: nothing in it acts on a terminal, a page, a comment or a CI log.
"""

import re
import shlex
from html import unescape
from urllib.parse import quote, urlsplit

from orbiter_mlflow.text.shortening import shortened

__all__ = [
    "in_json",
    "in_shell",
    "markdown_code",
    "markdown_text",
    "message",
    "page_title",
    "plain",
    "web_link",
]

_COLOURS = re.compile(r"(?:\x1b\[|\x9b)[0-?]{0,32}[ -/]{0,4}[@-~]")
_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
# Control characters, marks that change the direction of text, and characters that XML forbids.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)

_JOINER = "\u2060"
"""Word joiner: it has no width, and separates characters that together would have a meaning."""
# Commands that CI services find in a log: `::error::` of GitHub at the start of a line, that is,
# anywhere in a wrapped line; `##[error]` and `##vso[...]` of Azure, `##teamcity[...]`.
_COMMANDS = re.compile(
    r"(?<=[/@])\[[0-9A-Fa-f:.]{2,45}\]"  # but not an address: http://[::1]:5000
    r"|:(?=:)|#(?=#[\w.]{0,40}\[)"
)
# GitHub and GitLab find these in the rendered text, so escaping the Markdown does not help.
_REFERENCES = re.compile(
    r"[@#!~%&^](?=[\w\"'-])"  # @user #1 !1 ~label %milestone &epic ^alert
    r"|\bGH-(?=\d)"
    r"|:(?=//|[\w+-]+:)"  # https://x :emoji:
    r"|\bwww(?=\.)",
    re.IGNORECASE,
)
_MARKUP = re.compile(r"[\\`*{}\[\]<>&|~]|(?<![^\W_])_|_(?![^\W_])")  # not in snake_case
_BLOCK = re.compile(r"\A(?:([-+=#/])|(\d+)([.)])(?!\S))")


def plain(text: str) -> str:
    """Put `text` on one line, without anything that a terminal, an XML parser or a browser acts on.

    Colour codes are removed, and line breaks and tabs become spaces. Any other control character,
    and any mark that changes the direction of text, becomes U+FFFD. A command for a CI service is
    broken by a character without width, wherever a line may be wrapped.
    """
    return _parted(_uncontrolled(text), _JOINER)


def in_json(text: str) -> str:
    """Escape commands for a CI service in JSON, or in YAML that quotes its strings.

    The value stays the same: only characters within strings are escaped.
    """
    return _COMMANDS.sub(lambda match: _ESCAPES.get(match[0], match[0]), text)


def in_shell(word: str) -> str:
    """Quote a word for a shell, without commands for a CI service; the shell sees the same word."""
    # Control characters go first: a colour code may include the closing quote.
    return _parted(shlex.quote(_uncontrolled(word)), "''")


def _uncontrolled(text: str) -> str:
    return _CONTROLS.sub("\ufffd", _BREAKS.sub(" ", _COLOURS.sub("", text)))


def _parted(text: str, by: str) -> str:
    return _COMMANDS.sub(lambda match: match[0] + (by if len(match[0]) == 1 else ""), text)


_ESCAPES = {character: f"\\u{ord(character):04x}" for character in ":#"}


def message(text: str, length: int = 500) -> str:
    """The message of a store or server for people: one line, cut after `length` characters.

    A page of HTML, such as the login of a proxy, is not an answer of MLflow: its title is shown.
    """
    return shortened(plain(_PAGE.sub(_page_named, text)), length)


_PAGE = re.compile(r"(?:<!doctype\s{1,8}html|<html[\s>]).*", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<>]{0,200})", re.IGNORECASE)


def _page_named(page: re.Match[str]) -> str:
    return f"[an HTML page, not MLflow's answer: {page_title(page[0]) or 'it has no title'}]"


def page_title(text: str) -> str:
    """The title of an HTML page within a text, on one line; empty without one."""
    title = _TITLE.search(text)
    return plain(" ".join(unescape(title[1]).split())) if title else ""


def markdown_text(text: str) -> str:
    """Escape `text` for the Markdown of GitHub and GitLab, inside and outside of tables.

    No markup, HTML, link, image, @mention, #reference or list in it has an effect. The result is
    one line; do not put it at the start of a line, where GitLab reads quick actions (`/close`).
    """
    parted = _REFERENCES.sub(lambda match: match[0] + _JOINER, plain(text).strip())
    escaped = _MARKUP.sub(lambda match: f"&#{ord(match[0])};", parted)
    escaped = escaped.replace("$", "<span>$</span>")  # GitHub's own way to write no formula
    return _BLOCK.sub(
        lambda match: f"&#{ord(match[1])};" if match[1] else f"{match[2]}&#{ord(match[3])};",
        escaped,
    )


def markdown_code(text: str) -> str:
    """`text` as a code span of Markdown, inside and outside of tables.

    The two characters that could end the span or its cell are replaced by look-alikes.
    """
    shown = plain(text).replace("`", "\u02cb").replace("|", "\u00a6")
    return f"`{shown}`" if shown.strip() else "`(empty)`"


def web_link(url: str) -> str | None:
    """`url`, with unusual characters percent-encoded; None unless it is an http or https URL."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return None
    address = quote(url, safe="/:?#[]@!$&'()*+,;=%~", errors="replace")
    return _COMMANDS.sub(lambda match: _IN_LINK.get(match[0], match[0]), address)


_IN_LINK = {":": "%3A", "#": "%23"}
