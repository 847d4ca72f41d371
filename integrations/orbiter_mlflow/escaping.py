"""Texts that others wrote - names, params, error texts - made harmless for where they are shown.

Whatever stands in them is shown as text: nothing in it acts on a terminal, a page or a comment.
"""

import re
from urllib.parse import quote, urlsplit

__all__ = ["cut", "markdown_code", "markdown_text", "plain", "web_link"]

_COLOURS = re.compile(r"(?:\x1b\[|\x9b)[0-?]{0,32}[ -/]{0,4}[@-~]")
_BREAKS = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")
# Control characters, marks that turn the direction of text around, and what XML cannot hold.
_CONTROLS = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)

_JOINER = "\u2060"
"""Word joiner: it has no width, and parts what would be read as one."""
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
    mark that changes the direction of text, is shown as U+FFFD.
    """
    return _CONTROLS.sub("\ufffd", _BREAKS.sub(" ", _COLOURS.sub("", text)))


def cut(text: str, length: int) -> str:
    """`text`, of more than `length` characters only the first, and how many there were."""
    return text if len(text) <= length else f"{text[:length]}... ({len(text)} characters)"


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
    return quote(url, safe="/:?#[]@!$&'()*+,;=%~", errors="replace")
