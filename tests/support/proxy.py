"""A proxy in front of a real `mlflow server`, with the faults of a network and its servers."""

import contextlib
import http.client
import json
import random
import socket
import socketserver
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import urlsplit

from servers import free_port

CREATE = "runs/create"
BATCH = "runs/log-batch"


Kind = Literal["answer", "cut", "hang", "drop", "hold", "half", "twice", "late"]


@dataclass
class Fault:
    """A fault that hits some requests.

    `answer`: the proxy answers with `status` and `body`, nothing is passed on.
    `cut`: the connection is dropped, nothing is passed on.
    `hang`: no answer until `release`, then the connection is dropped; nothing is passed on.
    `drop`: passed on; the connection is dropped instead of answered.
    `hold`: passed on once `release` is called, and answered then.
    `half`: passed on; half of the answer comes back.
    `twice`: passed on twice, as by a proxy that repeats requests.
    `late`: passed on after `delay` seconds.

    Args:
        path: a part of the path of the requests that are hit.
        times: how many are hit; None: all.
        over: only requests with a longer body than so many bytes.
        chance: how likely a request is hit; `rng` decides.
    """

    kind: Kind
    path: str = ""
    times: int | None = None
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    over: int = -1
    body: bytes = b"the proxy says no"
    delay: float = 0.0
    chance: float = 1.0
    rng: random.Random = field(default_factory=random.Random)
    hits: int = 0
    """Requests that were hit."""
    passed: int = 0
    """Requests that were hit, passed on and carried out."""
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self._released.set()

    def wait(self) -> None:
        self._released.wait(120)

    def takes(self, path: str, length: int) -> bool:
        left = self.times is None or self.hits < self.times
        hit = left and self.path in path and length > self.over
        return hit and (self.chance >= 1.0 or self.rng.random() < self.chance)


class Proxy:
    """Passes requests on to `upstream`, except those that a fault hits."""

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream).netloc
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.token: str | None = None
        """The `Authorization` that requests must have; others are answered 401."""
        self.old_version: str | None = None
        """Answer as a server of this version, which takes no `:` in a key, and no long tag."""
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self._server: _Server | None = None

    def __enter__(self) -> "Proxy":
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        for fault in self.faults:
            fault.release()
        self.refuse()

    def open(self) -> None:
        """Accept connections."""
        if self._server is None:
            self._server = _Server(self)
            threading.Thread(
                target=self._server.serve_forever, args=(0.02,), name="proxy", daemon=True
            ).start()

    def refuse(self) -> None:
        """Refuse new connections, and drop the open ones."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.drop_all()

    def add(self, kind: Kind, **how: Any) -> Fault:
        fault = Fault(kind, **how)
        with self.lock:
            self.faults.append(fault)
        return fault

    def heal(self) -> None:
        """End all faults; requests that hang or are held go on."""
        with self.lock:
            faults, self.faults = self.faults, []
        for fault in faults:
            fault.release()

    def fault_for(self, path: str, length: int) -> Fault | None:
        with self.lock:
            self.requests.append(path)
            for fault in self.faults:
                if fault.takes(path, length):
                    fault.hits += 1
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", proxy.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def drop_all(self) -> None:
        for connection in list(self._connections):
            _cut(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that are gone, as some tests make them go."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: socketserver.BaseServer

    def _pass(self) -> None:
        assert isinstance(self.server, _Server)
        proxy = self.server.proxy
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = proxy.fault_for(self.path, len(body))
        if proxy.token and self.headers.get("Authorization") != f"Bearer {proxy.token}":
            self._answer(401, {}, b"the token is not valid")
        elif proxy.old_version and (old := _old_answer(proxy.old_version, self.path, body)):
            self._answer(*old)
        elif fault is None:
            self._answer(*self._ask(proxy, body))
        elif fault.kind == "answer":
            self._answer(fault.status, fault.headers, fault.body)
        elif fault.kind == "cut":
            self._drop()
        elif fault.kind == "hang":
            fault.wait()
            self._drop()
        elif fault.kind == "drop":
            self._ask(proxy, body)
            fault.passed += 1
            self._drop()
        else:
            if fault.kind == "hold":
                fault.wait()
            elif fault.kind == "late":
                time.sleep(fault.delay)
            elif fault.kind == "twice":
                self._ask(proxy, body)
            status, headers, content = self._ask(proxy, body)
            fault.passed += 1
            if fault.kind == "half":
                content = content[: len(content) // 2]
            self._answer(status, headers, content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815  as http.server wants

    def _ask(self, proxy: Proxy, body: bytes) -> tuple[int, Mapping[str, str], bytes]:
        with contextlib.closing(http.client.HTTPConnection(proxy.upstream, timeout=60)) as upstream:
            upstream.request(self.command, self.path, body, dict(self.headers))
            answer = upstream.getresponse()
            kind = answer.headers.get("Content-Type", "application/json")
            return answer.status, {"Content-Type": kind}, answer.read()

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _drop(self) -> None:
        self.close_connection = True
        _cut(self.connection)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  as http.server names it
        """Log nothing."""


def _old_answer(
    version: str, path: str, body: bytes
) -> tuple[int, Mapping[str, str], bytes] | None:
    """What only a server before MLflow 2.16 answers; None for what newer ones answer, too."""
    if path == "/version":
        return 200, {"Content-Type": "text/html"}, version.encode()
    if not path.endswith(("log-batch", "set-tag", "log-parameter", "log-metric")):
        return None
    request = json.loads(body)
    entries = [request, *(one for kind in _KINDS for one in request.get(kind, ()))]
    bad = [one["key"] for one in entries if ":" in one.get("key", "")]
    long = [one["key"] for one in [request, *request.get("tags", ())] if _is_long(one)]
    if not bad and not long:
        return None
    problem = f"Invalid parameter name: '{bad[0]}'" if bad else f"Tag value {long[0]} is too long"
    answer = {"error_code": "INVALID_PARAMETER_VALUE", "message": problem}
    return 400, {"Content-Type": "application/json"}, json.dumps(answer).encode()


_KINDS = ("metrics", "params", "tags")


def _is_long(entity: Mapping[str, Any]) -> bool:
    return "key" in entity and len(str(entity.get("value", ""))) > 5000 and "step" not in entity


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
