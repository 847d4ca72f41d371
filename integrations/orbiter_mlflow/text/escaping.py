"""Texts that others wrote - names, params, error texts - made harmless for where they are shown.

Whatever stands in them is shown as text: nothing in it acts on a terminal, a page or a comment.
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
# Control characters, marks that turn the direction of text around, and what XML cannot hold.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)

_JOINER = "\u2060"
"""Word joiner: it has no width, and parts what would be read as one."""
# What services of CI act on in a log: `::error::` of GitHub at the start of a line, which may begin
# anywhere where a line is wrapped; `##[error]`, `##vso[...]` of Azure, `##teamcity[...]`.
_COMMANDS = re.compile(
    r"(?<=[/@])\[[0-9A-Fa-f:.]{2,45}\]"  # but not an address: http://[::1]:5000
    r"|:(?=:)|#(?=#[\w.]{0,40}\[)"
)
# GitHub and GitLab look for these in the finished text, so that no escaping of Markdown helps.
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
    """`text` on one line, without anything that a terminal, an XML parser or a browser acts on.

    Colour codes are gone, line breaks and tabs are spaces; any other control character, and any
    mark that changes the direction of text, is shown as U+FFFD. What a CI service would take for a
    command in a log is parted by a character without width, wherever a line may be wrapped.
    """
    return _parted(_uncontrolled(text), _JOINER)


def in_json(text: str) -> str:
    """JSON, or YAML in which such texts are quoted, without anything that a CI service acts on.

    It reads as before: the characters stand in strings only, and as escapes.
    """
    return _COMMANDS.sub(lambda match: _ESCAPES.get(match[0], match[0]), text)


def in_shell(word: str) -> str:
    """One word for a shell that a CI service does not act on either: the word that it was."""
    # Its controls go first: what looks like a colour may end with the quote.
    return _parted(shlex.quote(_uncontrolled(word)), "''")


def _uncontrolled(text: str) -> str:
    return _CONTROLS.sub("\ufffd", _BREAKS.sub(" ", _COLOURS.sub("", text)))


def _parted(text: str, by: str) -> str:
    return _COMMANDS.sub(lambda match: match[0] + (by if len(match[0]) == 1 else ""), text)


_ESCAPES = {character: f"\\u{ord(character):04x}" for character in ":#"}


def message(text: str, length: int = 500) -> str:
    """What a store or a server said, as a person is told it: on one line, and not too long.

    A page of HTML - a sign-in of a proxy, an error of a gateway - is no answer of MLflow's: it is
    named by its title.
    """
    return shortened(plain(_PAGE.sub(_page_named, text)), length)


_PAGE = re.compile(r"(?:<!doctype\s{1,8}html|<html[\s>]).*", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(r"<title[^<>]{0,200}>([^<>]{0,200})", re.IGNORECASE)


def _page_named(page: re.Match[str]) -> str:
    return f"[an HTML page, not MLflow's answer: {page_title(page[0]) or 'it has no title'}]"


def page_title(text: str) -> str:
    """The title of a page of HTML in a text, on one line; empty where it has none."""
    title = _TITLE.search(text)
    return plain(" ".join(unescape(title[1]).split())) if title else ""


def markdown_text(text: str) -> str:
    """`text` for running text of GitHub's and GitLab's Markdown, in a table or out of it.

    No markup, HTML, link, image, @mention, #reference or list in it acts. It is one line, and
    must not stand at the start of a line that GitLab could read as a quick action (`/close`).
    """
    parted = _REFERENCES.sub(lambda match: match[0] + _JOINER, plain(text).strip())
    escaped = _MARKUP.sub(lambda match: f"&#{ord(match[0])};", parted)
    escaped = escaped.replace("$", "<span>$</span>")  # GitHub's own way to write no formula
    return _BLOCK.sub(
        lambda match: f"&#{ord(match[1])};" if match[1] else f"{match[2]}&#{ord(match[3])};",
        escaped,
    )


def markdown_code(text: str) -> str:
    """`text` as a code span, in a table or out of it: nothing in one is read any further.

    The two characters that could end the span or its cell are shown as their look-alikes.
    """
    shown = plain(text).replace("`", "\u02cb").replace("|", "\u00a6")
    return f"`{shown}`" if shown.strip() else "`(empty)`"


def web_link(url: str) -> str | None:
    """`url` with anything unusual in it percent-encoded; None for what is no address of the web."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return None
    address = quote(url, safe="/:?#[]@!$&'()*+,;=%~", errors="replace")
    return _COMMANDS.sub(lambda match: _IN_LINK.get(match[0], match[0]), address)


_IN_LINK = {":": "%3A", "#": "%23"}
