"""Remove the userinfo of URLs, in an address or anywhere in a text. The only place that does.

The user of `ssh://git@host/x.git` is no secret and is needed to clone; its password is removed. Any
other userinfo is removed whole, because a token may be the user name. `git@host:x.git` has no
password and stays. Every pattern takes time linear in the text.
"""

import re

__all__ = ["hide_userinfo", "without_userinfo"]

# The host that follows the `@` of a real address; otherwise the `@` belongs to a password.
_HOST = (
    r"(?:localhost|(?:[\w\-]{1,63}+\.){1,8}+[A-Za-z]{2,20}|[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
    r"|\[[0-9A-Fa-f:.]{2,45}\]|[\w.\-]{1,255}+(?=:[0-9]))(?:[:/?#\s\"'<>]|$)"
)
_USERINFO = re.compile(
    r":(?P<slashes>/{1,2}+)(?!/)(?:"  # `Path` leaves one slash of a URL's two
    # A password may hold `/`, `@`, `?`, `#`. A port is none, and neither is a drive `C:/`.
    r"(?P<user>[^\s/?#@:\"'<>]{0,200}+):(?![0-9]++(?:[/?#\s]|$)|[/\\])"
    rf"(?:(?:[^\s\"'<>@]{{0,400}}+@){{1,9}}?(?={_HOST})|[^\s\"'<>]{{0,800}}@)"
    # Without a password it ends before the path: `https://host/@scope/package`.
    r"|(?<=//)[^\s/?#\"'<>\\]*@"
    r")"
)
_SSH = re.compile(r"(?:ssh|sftp|rsync)\Z", re.IGNORECASE)


def without_userinfo(text: str) -> str:
    """Remove the credentials from an address, or from every address in a text."""
    return _replaced(text, "")


def hide_userinfo(text: str, mark: str) -> str:
    """Replace the credentials by `mark`: `https://[redacted]@host`."""
    return _replaced(text, mark)


def _replaced(text: str, mark: str) -> str:
    if "@" not in text:
        return text

    def shown(match: re.Match[str]) -> str:
        kept = mark
        if _SSH.search(text, max(0, match.start() - 5), match.start()):
            if match["user"] is None:
                return match[0]
            kept = ":".join(filter(None, (match["user"], mark)))
        return f":{match['slashes']}{kept}{'@' if kept else ''}"

    return _USERINFO.sub(shown, text)
