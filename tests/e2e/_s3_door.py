"""Clients of S3 through the gateway: signed requests to the letter, boto3, the AWS CLI, rclone."""

from __future__ import annotations

import http.client
import os
import ssl
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from tests.unit.s3door.s3_requests import signed

if TYPE_CHECKING:
    from _stack import Done, Stack
    from tests.unit.s3door.s3_requests import Sent

__all__ = ["Answer", "Principal", "airbridge_command", "enroll_publisher", "principal"]

BIN = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes

    @property
    def got_through(self) -> bool:
        """Whether S3 did what was asked."""
        return self.status < 400


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody with a credential, in front of a stack's gateway."""

    name: str
    secret: str = field(repr=False)
    port: int
    ca: Path

    @property
    def host(self) -> str:
        """What clients sign as their host."""
        return f"localhost:{self.port}"

    def sign(self, method: str, path: str, **options: Any) -> Sent:
        """A request to S3 below the gateway's base path, signed by botocore."""
        given = {"name": self.name, "secret": self.secret, "host": self.host, **options}
        return signed(method, f"/s3{path}", **given)

    def send(self, sent: Sent, body: bytes = b"") -> Answer:
        """Send a request to the letter: no client tidies anything up."""
        context = ssl.create_default_context(cafile=str(self.ca))
        connection = http.client.HTTPSConnection("localhost", self.port, timeout=30, context=context)
        try:
            connection.putrequest(sent.method, sent.target, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.headers:
                connection.putheader(name, value)
            if body and not any(name.lower() == "content-length" for name, _ in sent.headers):
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body or None)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()

    def ask(self, method: str, path: str, body: bytes = b"", **options: Any) -> Answer:
        """Sign and send."""
        return self.send(self.sign(method, path, body=body, **options), body)

    def boto3(self) -> Any:
        """AWS's client for Python."""
        return boto3.client(
            "s3",
            endpoint_url=f"https://{self.host}/s3",
            region_name="us-east-1",
            aws_access_key_id=self.name,
            aws_secret_access_key=self.secret,
            verify=str(self.ca),
            config=Config(
                s3={"addressing_style": "path"},
                signature_version="s3v4",
                proxies={},
                retries={"total_max_attempts": 1},
            ),
        )

    def environment(self) -> dict[str, str]:
        """What ``make publisher`` writes into publisher.env."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "DAG_"))
        }
        return kept | {
            "AWS_ACCESS_KEY_ID": self.name,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"https://{self.host}/s3",
            "AWS_CA_BUNDLE": str(self.ca),
            "AWS_MAX_ATTEMPTS": "1",
            "NO_PROXY": "localhost",
            "DAG_BUCKET": "airbridge-dags",
            "ENVIRONMENT": "dev",
            "RCLONE_CONFIG": "",
            "RCLONE_CONFIG_AIRBRIDGE_TYPE": "s3",
            "RCLONE_CONFIG_AIRBRIDGE_PROVIDER": "Other",
            "RCLONE_CONFIG_AIRBRIDGE_ENV_AUTH": "true",
            "RCLONE_CONFIG_AIRBRIDGE_REGION": "us-east-1",
            "RCLONE_CONFIG_AIRBRIDGE_ENDPOINT": f"https://{self.host}/s3",
            "RCLONE_CONFIG_AIRBRIDGE_NO_CHECK_BUCKET": "true",
            "RCLONE_CA_CERT": str(self.ca),
            "RCLONE_RETRIES": "1",
            "RCLONE_LOW_LEVEL_RETRIES": "1",
        }

    def run(self, program: str, *arguments: str, cwd: Path | None = None) -> Done:
        """Run a program of the developer's environment as this principal."""
        from _stack import Done

        done = subprocess.run(
            [str(BIN / program), *arguments],
            env=self.environment(),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)


def airbridge_command(stack: Stack, *arguments: str) -> str:
    """Run ``airbridge …`` on the control plane and return what it printed."""
    return stack.exec("api-server", "airbridge-env", "airbridge", *arguments).stdout.strip()


def principal(stack: Stack, credential: str) -> Principal:
    """The bearer of a credential."""
    name, _, secret = credential.partition(".")
    ca = stack.folder / "gateway-ca.crt"
    ca.write_text(stack.gateway_ca)
    return Principal(name, secret, stack.gateway_port, ca)


def enroll_publisher(stack: Stack, name: str, packages: str) -> Principal:
    """A new publisher."""
    return principal(stack, airbridge_command(stack, "publisher", "enroll", name, "--packages", packages))
