"""A server on loopback that answers like GitHub's API, as far as comments on a pull request go."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "ghs_" + "A1b2C3d4E5f6" * 3
BOT = "github-actions[bot]"


@dataclass
class Comment:
    """A comment, with the login of its author."""

    id: int
    author: str
    body: str


@dataclass
class GitHub:
    """The comments on the pull requests of `example/agent`, and how the next requests are answered.

    Attributes:
        viewer: the account of the token.
        writes: whether the token may write.
        failing: statuses of the next requests, each once; `None` cuts the connection. A positive
            status is answered instead of carrying the request out, a negative one after it.
        page_size: comments on a page; GitHub's is what the query asks for.
        redirect: where all requests are redirected to; empty for nowhere.
    """

    uri: str = ""
    viewer: str = BOT
    writes: bool = True
    failing: list[int | None] = field(default_factory=list)
    page_size: int = 100
    redirect: str = ""
    comments: dict[int, list[Comment]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def add(self, number: int, author: str, body: str) -> Comment:
        made = Comment(sum(map(len, self.comments.values())) + 100, author, body)
        self.comments.setdefault(number, []).append(made)
        return made

    def bodies(self, number: int, author: str = BOT) -> list[str]:
        return [one.body for one in self.comments.get(number, []) if one.author == author]

    def answer(self, method: str, path: str, content: Any) -> tuple[int, dict[str, Any]]:
        """Status and content of an answer."""
        if path == "/api/graphql":
            return 200, self._page(content["variables"])
        if not self.writes:
            return 403, {"message": "Resource not accessible by integration", "status": "403"}
        if len(content["body"]) > 65_536:
            return 422, {"message": "Validation Failed"}
        found = re.fullmatch(r"/api/v3/repos/example/agent/issues/(\d+)/comments", path)
        if method == "POST" and found:
            return 201, self._shown(self.add(int(found[1]), self.viewer, content["body"]))
        found = re.fullmatch(r"/api/v3/repos/example/agent/issues/comments/(\d+)", path)
        for one in (one for of in self.comments.values() for one in of):
            if method == "PATCH" and found and one.id == int(found[1]):
                if one.author != self.viewer:
                    return 403, {"message": "Must have admin rights to Repository."}
                one.body = content["body"]
                return 200, self._shown(one)
        return 404, {"message": "Not Found"}

    def _shown(self, one: Comment) -> dict[str, Any]:
        return {"id": one.id, "html_url": f"https://github.example/c/{one.id}", "body": one.body}

    def _page(self, asked: dict[str, Any]) -> dict[str, Any]:
        if (asked["owner"], asked["name"]) != ("example", "agent"):
            return {"data": {"repository": None}, "errors": [{"type": "NOT_FOUND", "message": "x"}]}
        comments = self.comments.get(asked["number"], [])
        start = int(asked["after"] or 0)
        end = start + self.page_size
        nodes = [
            {"databaseId": one.id, "body": one.body, "viewerDidAuthor": one.author == self.viewer}
            for one in comments[start:end]
        ]
        info = {"hasNextPage": end < len(comments), "endCursor": str(end)}
        page = {"comments": {"nodes": nodes, "pageInfo": info}}
        return {"data": {"repository": {"pullRequest": page}}}


@contextmanager
def running_github() -> Iterator[GitHub]:
    """The server, as long as the context lasts."""
    github = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            github.requests.append(f"{self.command} {self.path}")
            github.tokens.append(self.headers["Authorization"])
            failing = github.failing.pop(0) if github.failing else 0
            if failing is None:
                self.close_connection = True
                return
            if github.redirect:
                self.send_response(307)
                self.send_header("Location", github.redirect + self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            status, answer = 0, dict[str, Any]()
            if failing <= 0:
                status, answer = github.answer(self.command, self.path, content)
            if failing:
                said = f"no luck for {self.headers['Authorization']}"
                status, answer = abs(failing), {"message": said}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_GET = _handle  # noqa: N815  the names that the server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    github.uri = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield github
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
