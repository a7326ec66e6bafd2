"""python -m orchestrator.worker: load one model and serve it until the parent is gone."""

from __future__ import annotations

import argparse
import asyncio

from orchestrator.worker.lifeline import die_with_parent
from orchestrator.worker.model import Settings
from orchestrator.worker.server import serve


def main() -> None:
    """Read the arguments; serve until killed, or until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.worker", description=__doc__)
    parser.add_argument("--socket", required=True, help="Unix socket to serve on")
    parser.add_argument("--task", required=True, help="a pipeline task of transformers")
    parser.add_argument("--model", required=True, help="a folder, or the id of a model on the hub")
    parser.add_argument("--revision", help="revision of a model on the hub")
    parser.add_argument("--device", help="a torch device; default: the first accelerator, else cpu")
    parser.add_argument("--dtype", default="auto", help="auto (as the weights are), float32, bfloat16 ...")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of one model call")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    parser.add_argument(
        "--import", dest="imports", action="append", default=[], help="NAME=FOLDER: a module to import first"
    )
    arguments = vars(parser.parse_args())
    arguments["imports"] = tuple(arguments["imports"])
    socket = arguments.pop("socket")
    die_with_parent()
    asyncio.run(serve(Settings(**arguments), socket))


if __name__ == "__main__":
    main()
