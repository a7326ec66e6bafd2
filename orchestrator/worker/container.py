"""python -m orchestrator.worker.container: serve one model, or a handler, in a container of its own."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal

from orchestrator.domain.worker import CANNOT_SERVE, CONTAINER_TOKEN_ENV
from orchestrator.worker.lifeline import leave
from orchestrator.worker.model import ModelSettings
from orchestrator.worker.server import ContainerPort, serve


def main() -> None:
    """Read the arguments; serve until a signal ends this process, which may be the container's first."""
    parser = argparse.ArgumentParser(prog="python -m orchestrator.worker.container", description=__doc__)
    parser.add_argument("--model", required=True, help="a folder, or the id of a model on the hub")
    parser.add_argument("--task", default="", help="a pipeline task of transformers; a handler needs none")
    parser.add_argument("--revision", help="revision of a model on the hub")
    parser.add_argument("--device", help="a torch device; default: the first accelerator, else cpu")
    parser.add_argument("--dtype", default="auto", help="auto (as the weights are), float32, bfloat16 ...")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="CPU threads of one model call")
    parser.add_argument("--handler", action="store_true", help="serve the model's handler.py")
    parser.add_argument("--trust-remote-code", action="store_true", help="run code that comes with the model")
    parser.add_argument("--host", default="0.0.0.0", help="the address to listen on")  # noqa: S104 - in its container
    parser.add_argument("--port", type=int, default=8000, help="the port to listen on")
    arguments = vars(parser.parse_args())
    host, port = arguments.pop("host"), arguments.pop("port")
    token = os.environ.pop(CONTAINER_TOKEN_ENV, "")  # a handler, and whatever it starts, need not see it
    if not token:
        leave(f"{CANNOT_SERVE}the environment variable {CONTAINER_TOKEN_ENV} holds no token for clients to send")
    asyncio.run(_serve(ModelSettings(**arguments), ContainerPort(host, port, token)))


async def _serve(settings: ModelSettings, port: ContainerPort) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)  # a first process ignores it by default
    await serve(settings, port)


if __name__ == "__main__":
    main()
