"""python -m orchestrator.worker: load one model, or a handler, and serve it until the parent is gone."""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from orchestrator.domain.worker import CANNOT_SERVE, TOKEN_ENV
from orchestrator.worker.handler.environment import change_environment
from orchestrator.worker.lifeline import die_with, leave
from orchestrator.worker.model import LoadFailed, ModelSettings
from orchestrator.worker.server import HandlerPort, InheritedSocket, StatusFile, serve


def main() -> None:
    """Read the arguments; serve until killed, or until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.worker", description=__doc__)
    places = parser.add_mutually_exclusive_group(required=True)
    places.add_argument("--socket", help="Unix socket to serve on")
    places.add_argument("--port", type=int, help="serve a handler here, with the toolkit's routes")
    places.add_argument(
        "--listen-on", type=int, help="descriptor of a socket with a port, for clients on other machines"
    )
    parser.add_argument("--host", default="127.0.0.1", help="goes with --port")
    parser.add_argument("--task", default="", help="a pipeline task of transformers; a handler needs none")
    parser.add_argument("--model", required=True, help="a folder, or the id of a model on the hub")
    parser.add_argument("--revision", help="revision of a model on the hub")
    parser.add_argument("--device", help="a torch device; default: the first accelerator, else cpu")
    parser.add_argument("--dtype", default="auto", help="auto (as the weights are), float32, bfloat16 ...")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of one model call")
    parser.add_argument("--handler", action="store_true", help="serve the model's handler.py")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], help="NAME=FOLDER: a module to import first"
    )
    parser.add_argument(
        "--install-requirements", action="store_true", help="run a handler in an environment of its requirements.txt"
    )
    parser.add_argument(
        "--parent", type=int, required=True, help="the process that starts this one, and with which it ends"
    )
    parser.add_argument("--report", help="file in which this worker says how it is, every second")
    parser.add_argument("--endpoint", default="", help="goes with --report: the name to say it by")
    arguments = vars(parser.parse_args())
    arguments["imports"] = tuple(arguments["imports"])
    socket, host, port = arguments.pop("socket"), arguments.pop("host"), arguments.pop("port")
    descriptor = arguments.pop("listen_on")
    installs = arguments.pop("install_requirements")
    path, endpoint = arguments.pop("report"), arguments.pop("endpoint")
    die_with(arguments.pop("parent"))
    settings = ModelSettings(**arguments)
    if installs:
        try:
            change_environment(Path(settings.model))
        except LoadFailed as failure:
            leave(f"{CANNOT_SERVE}{failure}")
    token = os.environ.pop(TOKEN_ENV, "")  # the handler need not see it
    place = socket or (HandlerPort(host, port, token) if descriptor is None else InheritedSocket(descriptor, token))
    asyncio.run(serve(settings, place, StatusFile(Path(path), endpoint) if path else None))


if __name__ == "__main__":
    main()
