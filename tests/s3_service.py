"""An S3 service on loopback, moto's, that records what it is asked and can be made to fail."""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass, field
from socket import SHUT_RDWR
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.untraced import UntracedThread, untraced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message><RequestId>r</RequestId></Error>'
CUT = (0, "")  # the connection is closed without an answer


@dataclass(frozen=True, slots=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: str
    range: str
    sent: int

    @property
    def wanted(self) -> int:
        """The bytes of the range that it asks for."""
        if not self.range:
            return 0
        first, _, last = self.range.removeprefix("bytes=").partition("-")
        return int(last) - int(first) + 1


@dataclass(slots=True)
class S3Service:
    """`fail` says for each request which status and code it is refused with, if any."""

    url: str
    client: Any
    asked: list[Asked] = field(default_factory=list)
    fail: Callable[[Asked], tuple[int, str] | None] = lambda asked: None
    bucket: str = "data"

    def reset(self) -> None:
        self.fail = lambda asked: None
        for found in self.client.list_buckets()["Buckets"]:
            name = found["Name"]
            for page in self.client.list_objects_v2(Bucket=name).get("Contents", ()):
                self.client.delete_object(Bucket=name, Key=page["Key"])
            for upload in self.unfinished(name):
                self.client.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
            self.client.delete_bucket(Bucket=name)
        self.client.create_bucket(Bucket=self.bucket)
        self.asked.clear()

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def get(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def keys(self) -> set[str]:
        """Return the objects, without the empty ones that Arrow leaves for folders."""
        found = self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ())
        return {one["Key"] for one in found if not one["Key"].endswith("/")}

    def unfinished(self, bucket: str | None = None) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.list_multipart_uploads(Bucket=bucket or self.bucket).get(
            "Uploads", []
        )
        return found

    def reads(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.method == "GET" and asked.range]

    def writes(self) -> list[str]:
        return [asked.path for asked in self.asked if asked.method in {"PUT", "POST", "DELETE"}]


ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "AKIATESTTESTTEST",
    "AWS_SECRET_ACCESS_KEY": "secret-of-the-tests",
    "AWS_REGION": "us-east-1",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@contextmanager
def s3_service() -> Iterator[S3Service]:
    import boto3
    from botocore.config import Config
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Quiet(WSGIRequestHandler):
        protocol_version = "HTTP/1.1"

        def log(self, *args: object) -> None:
            pass

    moto = DomainDispatcherApplication(create_backend_app)
    services: list[S3Service] = []

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        (service,) = services
        length = int(environ.get("CONTENT_LENGTH") or 0)
        asked = Asked(
            environ["REQUEST_METHOD"],
            unquote(environ["PATH_INFO"]),
            environ["QUERY_STRING"],
            environ.get("HTTP_RANGE", ""),
            length,
        )
        ours = "Boto3" not in environ.get("HTTP_USER_AGENT", "")
        if ours:
            service.asked.append(asked)
            if (refusal := service.fail(asked)) == CUT:
                environ["werkzeug.socket"].shutdown(SHUT_RDWR)
                return []
            if refusal is not None:
                environ["wsgi.input"].read(length)
                body = ERROR.format(code=refusal[1]).encode() if asked.method != "HEAD" else b""
                start(f"{refusal[0]} no", [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
                return [body]
        answered: Iterable[bytes] = moto(environ, start)
        return answered

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Quiet)
    server.process_request_thread = untraced(server.process_request_thread)  # type: ignore[attr-defined]  # as it is threaded
    url = f"http://127.0.0.1:{server.server_port}"
    client = boto3.client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"max_attempts": 1}),
    )
    services.append(S3Service(url, client))
    thread = UntracedThread(target=server.serve_forever)
    thread.start()
    try:
        yield services[0]
    finally:
        client.close()
        server.shutdown()
        thread.join()
        server.server_close()
