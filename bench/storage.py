"""Rows from Parquet in S3 (moto's server on loopback) and answers back to it, against the same on a local disk.

From S3, only the two columns that a job uses are read, of three; from the disk, all. Each measurement is a process of
its own, and so is the server. `python bench/storage.py [ROWS]` prints the table.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.sinks import ParquetSink
from orchestrator.sources import ParquetSource

ROWS = 100_000
GROUP = 20_000
PAGE = 500  # rows that a delivery is given at a time
_SERVER = """
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
input()
"""


def generate(path: Path, rows: int) -> None:
    """Write rows with an id, a text of about 400 characters, and a column that no job uses."""
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("unused", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, GROUP):
            numbers = range(start, min(start + GROUP, rows))
            text = [f"text of row {number} " * 20 for number in numbers]
            writer.write_table(pa.table({"id": list(map(str, numbers)), "text": text, "unused": text[::-1]}, schema))


def ingest(path: str) -> int:
    """Read all rows with two of three columns."""
    source = ParquetSource(path, id="id").selecting(frozenset({"text"}))
    with source.rows() as rows:
        return sum(1 for _ in rows)


def deliver(path: str, rows: int) -> int:
    """Deliver rows with their text and an answer."""
    with ParquetSink(path, ["text"], overwrite=True).open() as delivery:
        for start in range(0, rows, PAGE):
            numbers = range(start, min(start + PAGE, rows))
            delivery.complete([{"id": str(n), "text": f"text of row {n} " * 20, "output": n / 7} for n in numbers])
        delivery.seal({"job": "bench", "run": 1, "finished": True})
    return rows


def measure(what: str, path: str, rows: int) -> None:
    """Print the seconds and the peak memory in MB of this process."""
    start = time.perf_counter()
    assert (ingest(path) if what == "ingest" else deliver(path, rows)) == rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(time.perf_counter() - start, peak)


def measured(what: str, path: str, rows: int, environment: dict[str, str]) -> tuple[float, float]:
    """Return the seconds and the peak memory in MB of a process of its own."""
    command = [sys.executable, __file__, what, path, str(rows)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, peak = map(float, ended.stdout.split())
    return seconds, peak


def compare(folder: Path, rows: int, url: str) -> None:
    """Print both ways for a quarter of the rows and for all of them."""
    settings = {
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
    }
    os.environ.update(settings, AWS_DEFAULT_REGION="us-east-1")
    import boto3

    boto3.client("s3").create_bucket(Bucket="bench")
    for count in (rows // 4, rows):
        local = folder / f"{count}.parquet"
        generate(local, count)
        boto3.client("s3").upload_file(str(local), "bench", local.name)
        for what, here, there in (
            ("ingest", str(local), f"s3://bench/{local.name}"),
            ("deliver", str(folder / f"out-{count}.parquet"), f"s3://bench/out-{count}.parquet"),
        ):
            disk, disk_peak = measured(what, here, count, dict(os.environ))
            store, store_peak = measured(what, there, count, dict(os.environ))
            print(
                f"{what:8}{count:>10,} rows: disk {count / disk:>9,.0f}/s {disk_peak:>5.0f} MB, "
                f"S3 {count / store:>9,.0f}/s {store_peak:>5.0f} MB, time x{store / disk:.2f}"
            )


def main(rows: int) -> None:
    """Start the server and compare."""
    with tempfile.TemporaryDirectory() as folder:
        server = subprocess.Popen(
            [sys.executable, "-c", _SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        with server:
            assert server.stdout
            port = next(line for line in server.stdout if line.strip().isdecimal()).strip()
            try:
                compare(Path(folder), rows, f"http://127.0.0.1:{port}")
            finally:
                server.kill()


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main(int(sys.argv[1]) if len(sys.argv) == 2 else ROWS)
