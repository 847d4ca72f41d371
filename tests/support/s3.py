"""An S3 on loopback: moto's server."""

import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from servers import free_port
from waiting import eventually

KEYS = {"AWS_ACCESS_KEY_ID": "orbiter", "AWS_SECRET_ACCESS_KEY": "only-for-this-test"}


class S3:
    """An S3 that keeps its objects in memory, killed by its pid."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._log = folder / "s3.log"

    def __enter__(self) -> "S3":
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(self._answers)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/moto-api/", timeout=5):
                return True
        except OSError:
            if self._process.poll() is not None:
                raise RuntimeError(f"moto did not start: {self._log.read_text()}") from None
            return False

    def client(self) -> Any:
        """A client of boto3."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.uri,
            region_name="us-east-1",
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )

    def environment(self) -> dict[str, str]:
        """The variables by which MLflow finds it."""
        return {**KEYS, "MLFLOW_S3_ENDPOINT_URL": self.uri, "AWS_DEFAULT_REGION": "us-east-1"}

    def contents(self, bucket: str) -> dict[str, bytes]:
        """The objects of a bucket by their keys."""
        client = self.client()
        keys = [one["Key"] for one in client.list_objects_v2(Bucket=bucket).get("Contents", ())]
        return {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
