"""A real nginx on loopback before a server: TLS by a CA of its own, a path prefix, small limits."""

import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from servers import free_port
from waiting import eventually

_CONFIG = """
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
events {{}}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/server.pem;
    ssl_certificate_key {folder}/server.key;
    client_max_body_size {body_limit};
    location /mlflow/ {{
      proxy_pass {upstream}/;
      proxy_read_timeout 2s;
    }}
  }}
}}
"""


class Nginx:
    """Passes `https://127.0.0.1:<port>/mlflow` on to `upstream`, and waits 2 s for an answer.

    Args:
        upstream: `http://host:port`.
        folder: for its files; `ca.pem` there is the certificate of its CA.
        body_limit: the longest body of a request, in nginx' own units; others get 413.
    """

    def __init__(self, upstream: str, folder: Path, body_limit: str) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if program is None:
            pytest.skip("this machine has no nginx: apt-get install nginx-light")
        self._program = program
        self._folder = folder
        self.port = free_port()
        self.uri = f"https://127.0.0.1:{self.port}/mlflow"
        self.ca = folder / "ca.pem"
        user = "user root;" if folder.owner() == "root" else ""
        config = _CONFIG.format(
            user=user, folder=folder, port=self.port, upstream=upstream, body_limit=body_limit
        )
        (folder / "nginx.conf").write_text(config)

    def __enter__(self) -> "Nginx":
        self._make_certificates()
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._folder / "nginx.conf"), "-e", "stderr"],
            stderr=subprocess.DEVNULL,
        )
        eventually(self._listens)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()  # its workers end with it
        self._process.wait()

    def _listens(self) -> bool:
        assert self._process.poll() is None, (self._folder / "nginx.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _make_certificates(self) -> None:
        (self._folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
        for command in (
            (
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=orbiter-test-ca"
                " -addext keyUsage=critical,keyCertSign -keyout ca.key -out ca.pem"
            ),
            "req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr",
            (
                "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2"
                " -extfile names -out server.pem"
            ),
        ):
            subprocess.run(
                ["openssl", *command.split()], cwd=self._folder, check=True, capture_output=True
            )
