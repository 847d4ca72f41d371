"""The pull request that a GitHub workflow runs for, and one comment on it that is updated.

The comment is found by the line it begins with, among those that this token's account wrote: what
others write is never changed, even if it begins alike.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, Request, build_opener

from orbiter_mlflow.errors import GitHubError
from orbiter_mlflow.text.escaping import message

__all__ = ["MAX_COMMENT", "Workflow", "publish"]

MAX_COMMENT = 65_536
"""Characters of a comment that GitHub accepts."""

_TIMEOUT = 30.0
"""Seconds for one request."""
_WAITS = (1.0, 3.0, 9.0)
"""Seconds before each further attempt if GitHub does not answer, or answers with an error of its
own."""
_MAX_PAGES = 100
"""Pages of a hundred comments that are searched."""
_MAX_ANSWER = 50_000_000
"""Bytes of an answer that are read."""
_MAX_ERROR = 100_000
"""Bytes of an answer that refuses."""
_COMMENTS = """
query($owner: String!, $name: String!, $number: Int!, $after: String) {
  repository(owner: $owner, name: $name) {
    pullRequest(number: $number) {
      comments(first: 100, after: $after) {
        nodes { databaseId body viewerDidAuthor }
        pageInfo { hasNextPage endCursor }
      }
    }
  }
}
"""


@dataclass(frozen=True, slots=True)
class Workflow:
    """A run of a GitHub workflow, from its environment.

    Attributes:
        repository: `owner/name`.
        api, graphql: addresses of the REST and the GraphQL API; an enterprise server has its own.
        token: empty if the step has none.
        pull_request: its number; None if the event belongs to none.
        event: the name of the event: `pull_request`, `push`.
        commit: the head of the pull request, else the commit of the event.
        page: the address of this run.
        fork: whether the pull request comes from another repository.
        summary: the file of the job's summary; None if there is none.
    """

    repository: str
    api: str
    graphql: str
    token: str = field(repr=False)
    pull_request: int | None
    event: str
    commit: str
    page: str
    fork: bool
    summary: Path | None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Workflow":
        """The workflow whose step this process is.

        Raises:
            GitHubError: a variable that GitHub sets is missing or invalid.
        """

        def given(name: str, pattern: str) -> str:
            text = environment.get(name, "")
            if not re.fullmatch(pattern, text):
                what = f"is {message(text)!r}" if text else "is not set"
                raise GitHubError(f"${name} {what}: run this in a step of a GitHub workflow")
            return text

        address = r"https?://[^\s?#]+"
        repository = given("GITHUB_REPOSITORY", r"[\w.-]+/[\w.-]+")
        server = given("GITHUB_SERVER_URL", address)
        run = given("GITHUB_RUN_ID", r"\d+"), given("GITHUB_RUN_ATTEMPT", r"\d+")
        payload = _payload(given("GITHUB_EVENT_PATH", r".+"))
        change = _object(payload, "pull_request")
        issue = _object(payload, "issue")
        number = change.get("number") if change else None
        if not change and _object(issue, "pull_request"):
            number = issue.get("number")  # a comment on a pull request
        head = _object(change, "head")
        commit = head.get("sha") or environment.get("GITHUB_SHA", "")
        summary = environment.get("GITHUB_STEP_SUMMARY")
        return cls(
            repository=repository,
            api=given("GITHUB_API_URL", address),
            graphql=given("GITHUB_GRAPHQL_URL", address),
            token=environment.get("GITHUB_TOKEN", "").strip(),
            pull_request=number if isinstance(number, int) else None,
            event=environment.get("GITHUB_EVENT_NAME", "") or "unknown",
            commit=commit if re.fullmatch(r"[0-9a-f]{40,64}", str(commit)) else "",
            page=f"{server}/{repository}/actions/runs/{run[0]}/attempts/{run[1]}",
            fork=bool(head) and _object(head, "repo").get("full_name") != repository,
            summary=Path(summary) if summary else None,
        )


def _payload(path: str) -> dict[str, Any]:
    try:
        payload = json.loads(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise GitHubError(
            f"the event {path} ($GITHUB_EVENT_PATH) cannot be read: {error}"
        ) from error
    return payload if isinstance(payload, dict) else {}


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def publish(
    workflow: Workflow, text: str, *, sleep: Callable[[float], object] = time.sleep
) -> tuple[str, bool]:
    """Post the comment, or update the one that begins with the same line.

    Returns:
        The address of the comment, and whether it was there before.

    Raises:
        GitHubError: GitHub refuses, or does not answer after some attempts.
    """
    for wait in (*_WAITS, None):
        try:
            # Look for the comment each time: a request without an answer may have posted it.
            return _publish(workflow, text)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise GitHubError("the answer is not GitHub's: check $GITHUB_API_URL") from error
        except _PassingError as error:
            if wait is None:
                raise GitHubError(str(error)) from error
            sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _publish(workflow: Workflow, text: str) -> tuple[str, bool]:
    first = text.split("\n", 1)[0]
    base = f"{workflow.api}/repos/{workflow.repository}/issues"
    for comment in _comments(workflow):
        body = str(comment["body"])
        if comment["viewerDidAuthor"] is True and body.split("\n", 1)[0].strip() == first:
            address = f"{base}/comments/{int(comment['databaseId'])}"
            return str(_call(workflow, "PATCH", address, {"body": text})["html_url"]), True
    address = f"{base}/{workflow.pull_request}/comments"
    return str(_call(workflow, "POST", address, {"body": text})["html_url"]), False


def _comments(workflow: Workflow) -> Iterator[dict[str, Any]]:
    owner, name = workflow.repository.split("/")
    after = None
    for _ in range(_MAX_PAGES):
        asked = {"owner": owner, "name": name, "number": workflow.pull_request, "after": after}
        answer = _call(workflow, "POST", workflow.graphql, {"query": _COMMENTS, "variables": asked})
        for error in answer.get("errors") or ():
            status = 403 if error.get("type") == "FORBIDDEN" else 404
            raise GitHubError(_refused(workflow, status, str(error.get("message"))), status)
        page = answer["data"]["repository"]["pullRequest"]["comments"]
        yield from page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            return
        after = page["pageInfo"]["endCursor"]


# -- one request -----------------------------------------------------------------------------------


class _PassingError(Exception):
    """GitHub may answer if it is asked again."""


class _NoRedirects(HTTPRedirectHandler):
    """The token goes to the address that the workflow names, and nowhere else."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _call(workflow: Workflow, method: str, address: str, content: Any) -> Any:
    request = Request(  # noqa: S310  `Workflow` accepts http and https only
        address,
        data=json.dumps(content).encode(),
        method=method,
        headers={
            "Accept": "application/vnd.github+json",
            "Authorization": f"Bearer {workflow.token}",
            "Content-Type": "application/json",
            "User-Agent": "orbiter-mlflow",
            "X-GitHub-Api-Version": "2022-11-28",
        },
    )
    try:
        with build_opener(_NoRedirects).open(request, timeout=_TIMEOUT) as answer:
            return json.loads(answer.read(_MAX_ANSWER))
    except HTTPError as error:
        with error:
            refused = _refused(
                workflow, error.code, error.read(_MAX_ERROR).decode(errors="replace")
            )
        if error.code >= 500 or error.code == 429:
            raise _PassingError(refused) from None
        raise GitHubError(refused, error.code) from None
    except (OSError, HTTPException) as error:
        why = _shown(workflow, f"{type(error).__name__}: {error}")
        raise _PassingError(f"GitHub does not answer: {why}") from None


def _refused(workflow: Workflow, status: int, answer: str) -> str:
    """What GitHub says, from its JSON if it is JSON."""
    with suppress(ValueError, TypeError, KeyError):  # a page of a proxy, or a message by itself
        answer = str(json.loads(answer)["message"])
    return f"GitHub refuses it ({status}: {_shown(workflow, answer)})"


def _shown(workflow: Workflow, text: str) -> str:
    """The text for people, without the token, which a server or a proxy may repeat."""
    return message(text.replace(workflow.token, "[redacted]"))
