"""A small server program, standard library only, that tests start through a `LocalServer`. Run as a script."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)
parser.add_argument("--say", default="loading weights: 50%")
parser.add_argument("--loads-until", type=Path, help="this file is there")
parser.add_argument("--fails-with", help="these words, and exit code 1")
parser.add_argument("--fails-unless", type=Path, help="this file is there; it makes it")
parser.add_argument("--only-on", help="--loads-until is for the replica that sees this GPU")
parser.add_argument("--ends", action="store_true", help="at once, with exit code 0")
parser.add_argument("--stubborn", action="store_true", help="it takes no SIGTERM")
parser.add_argument("--children", type=Path, help="start two, one in a session of its own; their pids go here")
parser.add_argument("--hold-until", type=Path, help="requests that begin with `hold` are answered once it is there")
parser.add_argument("--begun", type=Path, help="one more byte here for each request that is held")
parser.add_argument("--dead-after", type=int, help="so many requests; then the engine inside is dead, and it runs on")
parser.add_argument("--dead-how", default="error", help="error: every request is answered 500; hang: none is answered")
parser.add_argument("--dead-for-good", type=Path, help="as long as this file is there; it makes it")
parser.add_argument("--unwell", action="store_true", help="its health route says so once the engine is dead")
parser.add_argument("--starts", type=Path, help="one more byte here for each start")
given = parser.parse_args()
asked = answering = answered = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self.answer(200, f"llamacpp:requests_processing {asked}\nllamacpp:kv_cache_usage_ratio 0.5\n".encode())
            return
        other = given.only_on not in {None, os.environ.get("CUDA_VISIBLE_DEVICES")}
        ready = other or given.loads_until is None or given.loads_until.exists()
        self.answer(200 if ready and not (given.unwell and is_dead()) else 503, b"{}")

    def do_POST(self) -> None:
        global answering, answered  # noqa: PLW0603 - it is a script
        answering += 1
        try:
            self.infer()
        finally:
            answering -= 1
            answered += 1

    def infer(self) -> None:
        global asked  # noqa: PLW0603
        asked += 1
        inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        if inputs == "kill the engine":
            while answering > 1 or not (answered or given.starts.stat().st_size > 1):
                time.sleep(0.01)
            given.dead_after = 0
        if is_dead():
            while given.dead_how == "hang":
                time.sleep(60)
            self.answer(500, b'{"error": "EngineCore encountered an issue"}')
            return
        if inputs == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if inputs == "fail and end":
            given.loads_until = Path(os.devnull) / "never"  # from now on it is unhealthy
            threading.Timer(0.2, os._exit, [1]).start()
            self.answer(500, b'{"error": "the engine is dead"}')
            return
        if inputs == "fail":
            self.answer(500, b'{"error": "a bug"}')
            return
        if str(inputs).startswith("hold"):
            with given.begun.open("ab") as begun:
                begun.write(b".")
            while not given.hold_until.exists():
                time.sleep(0.01)
        seen = os.environ.get("CUDA_VISIBLE_DEVICES")
        self.answer(200, json.dumps({"pid": os.getpid(), "inputs": inputs, "gpus": seen}).encode())

    def answer(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def is_dead() -> bool:
    dead = given.dead_after is not None and asked > given.dead_after
    if dead and given.dead_for_good:
        given.dead_for_good.touch()
    return dead or (given.dead_for_good is not None and given.dead_for_good.exists())


class Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_: object) -> None:
        """Do not log clients that hang up."""


def main() -> None:
    sys.stderr.write(f"{given.say}\n")
    if given.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if given.children:
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        pids = [subprocess.Popen(sleep, start_new_session=own).pid for own in (False, True)]
        given.children.write_text(json.dumps(pids))
    if given.ends:
        return
    if given.starts:
        with given.starts.open("ab") as starts:
            starts.write(b".")
    first = given.fails_unless is not None and not given.fails_unless.exists()
    if given.fails_unless is not None:
        given.fails_unless.touch()
    if given.fails_with and (first or given.fails_unless is None):
        sys.exit(given.fails_with)
    Server(("127.0.0.1", given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
