"""python -m orchestrator.worker.container: serve one model, or a handler, in a container of its own."""

from __future__ import annotations

import argparse
import asyncio
import hmac
import os
import signal
import sys
from typing import TYPE_CHECKING

from aiohttp import web

from orchestrator.domain.worker import CANNOT_SERVE, CONTAINER_TOKEN_ENV, CONTAINER_TOKEN_HEADER, SERVING
from orchestrator.worker.lifeline import leave
from orchestrator.worker.model import LoadFailed, ModelSettings
from orchestrator.worker.server import WorkerServer

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware


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
    asyncio.run(serve(ModelSettings(**arguments), host, port, token))


async def serve(settings: ModelSettings, host: str, port: int, token: str) -> None:
    """Listen at once, load the model, and serve. Exits with 1 if it cannot be loaded."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)  # a first process ignores it by default
    server = WorkerServer()
    application = server.application()
    application.middlewares.append(for_holders_of(token))
    runner = web.AppRunner(application, access_log=None, handler_cancellation=True, auto_decompress=False)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    try:
        await site.start()
        await server.load(settings)
    except (OSError, LoadFailed) as failure:
        leave(f"{CANNOT_SERVE}{failure}")
    sys.stdout.write(f"{SERVING}{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


def for_holders_of(token: str) -> Middleware:
    """Return a middleware that answers 401 to every request without the token, except for the health of the model.

    The token has a header of its own: `Authorization` is that of whatever passes requests on to the container.
    """

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get(CONTAINER_TOKEN_HEADER, "").encode(errors="surrogateescape")
        if request.path != "/health" and not hmac.compare_digest(given, token.encode()):
            words = f"the header {CONTAINER_TOKEN_HEADER} is missing, or its token is another one"
            return web.json_response({"error": words}, status=401)
        return await handler(request)

    return check


if __name__ == "__main__":
    main()
