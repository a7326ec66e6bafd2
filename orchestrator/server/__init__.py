"""The HTTP server: a front end without logic of its own. HTTP in, methods of `App`, JSON and HTML out.

`listening` binds the socket and serves until asked to stop. `application` has `build`, which puts middlewares and
routes together: `failures` (request ids, errors as JSON), `headers` (what every response says to browsers), `access`
(Host, Origin, token, role, CSRF; the tokens are in `tokens`). Handlers learn everything from `context`. Routes are in
packages of their own: each has `routes()`, which `build` mounts.
"""

from orchestrator.server.listening import Listener, listener_of, serve_http
from orchestrator.server.tokens import main_token

__all__ = ["Listener", "listener_of", "main_token", "serve_http"]
