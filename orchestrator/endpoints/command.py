"""CommandEndpoint: a server that the user's own commands wake and pause (kubectl, docker, sky, systemctl, ssh)."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from dataclasses import KW_ONLY, dataclass, field
from typing import TYPE_CHECKING, Literal

from anyio import to_thread
from yarl import URL

from orchestrator.domain.command_line import check_arguments
from orchestrator.domain.endpoint import EndpointState
from orchestrator.domain.errors import EndpointFailed, EndpointSilent, UsageError
from orchestrator.domain.secrets import Secrets
from orchestrator.domain.terms import Pause, Terms
from orchestrator.domain.urls import without_keys
from orchestrator.endpoints.http import bearer, check_url, data_plane
from orchestrator.endpoints.processes import last_line, located, run, shown
from orchestrator.endpoints.reach import why_silent
from orchestrator.wires.huggingface import HuggingFaceWire, for_batches
from orchestrator.wires.reask import refusal_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from orchestrator.domain.errors import RequestFailed
    from orchestrator.domain.policy import Policy
    from orchestrator.endpoints.http import HttpData
    from orchestrator.wires.wire import Wire

_WORDS = {  # used by systemd, Docker, Kubernetes, SkyPilot and the virtual machines of the large clouds
    EndpointState.PAUSED: "paused stopped inactive exited created down dead off suspended deallocated terminated",
    EndpointState.SCALED_TO_ZERO: "scaledtozero",
    EndpointState.STARTING: "starting pending activating init initializing provisioning staging creating scheduled "
    "restarting reloading refreshing updating progressing waking "
    "stopping autostopping deactivating deallocating suspending shutting-down terminating removing",  # still billed
    EndpointState.AWAKE: "running active up awake ready healthy",
    EndpointState.FAILED: "failed error crashloopbackoff",
    EndpointState.GONE: "deleted notfound",
}
_KNOWN = {word: state for state, words in _WORDS.items() for word in (state.value, *words.split())}
_REPLICAS = re.compile(r"(?:(?P<ready>\d*)/)?(?P<wanted>\d+)")


@dataclass(frozen=True, slots=True)
class CommandEndpoint:
    """A server at `url` that three commands resume, inspect and pause, each a list of arguments run without a shell.

    The commands are stored in the ledger, so that any process can pause the server. Keep secrets in the environment.

    `state`: prints one of `words` or of the usual words (running, active, up; starting, pending, init; stopped,
    inactive, exited, down; failed ...) in upper or lower case, or a number of replicas: `1`, `1/2`, `/2`. The word is
    the last line of the output or, if the command exits with 0, the last word of that line. If the line is only a known
    word, it counts whatever the exit code.
    `words`: what this server's own words mean, as values of `EndpointState`: {"frozen": "paused"}. The key "" stands
    for no output.
    `resume`, `pause`: exit with 0 once the change has been requested; it need not be complete. If a command starts the
    server itself, the server needs standard streams of its own.
    `wire`: the request format. Inputs are sent as lists if `policy.batch_size` is above 1.
    `token_env`: the environment variable with the bearer token. `health`: a route that answers 200 once the server is
    ready. `model`: the model that is served, so that answers stay valid if the endpoint's name changes.
    `leave`: "if_resumed", "always" or "never", as in `Terms.pause`; "scale_to_zero" means "always".
    `linger`, `price_per_hour`: see `Terms`. `deadline`: seconds for one command. `look_every`: seconds between two
    looks at the state.
    """

    name: str
    url: str
    _: KW_ONLY
    resume: Sequence[str]
    state: Sequence[str]
    pause: Sequence[str]
    words: Mapping[str, str] = field(default_factory=dict)
    wire: Wire = field(default_factory=HuggingFaceWire)
    token_env: str | None = None
    model: str | None = None
    health: str | None = None
    startup_timeout: float = 1800.0
    leave: Pause | Literal["if_resumed", "always", "never", "scale_to_zero"] = Pause.IF_RESUMED
    linger: float = 0.0
    price_per_hour: float | None = None
    deadline: float = 120.0
    look_every: float = 5.0

    def __post_init__(self) -> None:
        check_url(self.url)
        if not self.name.strip():
            raise ValueError("an endpoint needs a name: the ledger identifies it by that")
        for verb in ("resume", "state", "pause"):
            check_arguments(getattr(self, verb), verb, "['kubectl', 'get', ...]")
        for word, state in self.words.items():
            if state not in tuple(EndpointState):
                raise ValueError(f"words[{word!r}] must be one of {', '.join(EndpointState)}, not {state!r}")
        if self.leave not in tuple(Pause):
            raise ValueError(f"leave must be one of {', '.join(Pause)}, not {self.leave!r}")
        for name, least in (("startup_timeout", 0.001), ("deadline", 0.001), ("look_every", 0.001), ("linger", 0.0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be a number of seconds of at least {least:g}")

    def identity(self, policy: Policy) -> Mapping[str, object]:
        """Return the model (or the endpoint's name) and the wire."""
        return {"kind": "command", "model": self.model or self.name, **self._wire(policy).identity}

    async def unsendable(self, request: bytes, policy: Policy) -> RequestFailed | None:
        """Return why the wire cannot send this request, or None if it can."""
        return await refusal_of(self._wire(policy), request)

    @asynccontextmanager
    async def control(self) -> AsyncIterator[CommandControl]:
        """Find the programs. Raises `UsageError`, before anything is resumed, if a program or the token is missing."""
        bearer(self.token_env, self.name)
        found = {verb: await to_thread.run_sync(located, getattr(self, verb)) for verb in ("resume", "state", "pause")}
        for verb, command in found.items():
            if command is None:
                program = getattr(self, verb)[0]
                raise UsageError(
                    f"endpoint {self.name}: there is no program {program!r}, which its {verb} command needs"
                )
        yield CommandControl(self, {verb: command for verb, command in found.items() if command is not None})

    def _wire(self, policy: Policy) -> Wire:
        return for_batches(self.wire, policy.batch_size)


class CommandControl:
    """The control plane of one server: it resumes, inspects and pauses the server by running commands."""

    def __init__(self, endpoint: CommandEndpoint, commands: Mapping[str, Sequence[str]]) -> None:
        self._endpoint = endpoint
        self._commands = commands
        self._words = _KNOWN | {word.lower(): EndpointState(state) for word, state in endpoint.words.items()}
        self.look_every = endpoint.look_every
        self.installing = False
        self._said = "not looked at yet"
        self._silent: str | None = None  # why it did not answer the last time that we asked
        self.terms = Terms(
            endpoint=endpoint.name,
            pause_with={
                "kind": "command",
                "name": endpoint.name,
                "url": without_keys(endpoint.url),
                **{verb: list(command) for verb, command in commands.items()},
                "words": {word: str(state) for word, state in endpoint.words.items()},
                "deadline": endpoint.deadline,
                "look_every": endpoint.look_every,
            },
            pause=Pause(endpoint.leave),
            linger=endpoint.linger,
            price_per_hour=endpoint.price_per_hour,
            pause_deadline=2 * endpoint.deadline,
        )

    @property
    def status_text(self) -> str:
        """The word that the state command printed last and, if the server does not answer, why."""
        return f"{self._said}; {self._silent}" if self._silent else self._said

    async def resume(self) -> None:
        """Run the resume command. Raises `EndpointFailed` with its last line of output unless it exits with 0."""
        command, self._silent = self._commands["resume"], None
        ended = await run(command, self._endpoint.deadline)
        if ended.code:
            raise EndpointFailed(self._about(command, f"exited with {ended.code}: {ended.last_words}"))

    async def state(self) -> EndpointState:
        """Run the state command and return what its word means.

        Raises `EndpointFailed` if the word is unknown, and `EndpointSilent` if the command failed without a known word.
        """
        command = self._commands["state"]
        ended = await run(command, self._endpoint.deadline)
        line = last_line(ended.out)
        state = self._meaning(line, failed=ended.code != 0)
        if state is not None:
            self._said = line or state
            if state.asleep:
                self._silent = None
            return state
        if ended.code:
            raise EndpointSilent(self._about(command, f"exited with {ended.code}: {ended.last_words}"))
        raise EndpointFailed(
            self._about(command, f"printed {line!r}, which is not a known state; set words= to say what it means")
        )

    async def price(self) -> None:
        """Return None: no price is published."""

    async def answers(self) -> bool:
        """Whether the health route answers 200 or, if there is none, the server accepts a connection."""
        endpoint = self._endpoint
        headers = bearer(endpoint.token_env, endpoint.name)
        self._silent = await why_silent(URL(endpoint.url), endpoint.health, headers)
        return self._silent is None

    async def pause(self, *, to_zero: bool = False) -> None:
        """Run the pause command. Raises `EndpointSilent` unless it exits with 0, as another try may succeed."""
        command = self._commands["pause"]
        ended = await run(command, self._endpoint.deadline)
        if ended.code:
            raise EndpointSilent(self._about(command, f"exited with {ended.code}: {ended.last_words}"))

    @asynccontextmanager
    async def connect(self, policy: Policy) -> AsyncIterator[HttpData]:
        """Open the data plane at the endpoint's URL."""
        endpoint = self._endpoint
        headers, wire = bearer(endpoint.token_env, endpoint.name), endpoint._wire(policy)  # noqa: SLF001 - its own
        async with data_plane(URL(endpoint.url), headers, wire, policy) as data:
            yield data

    def _meaning(self, line: str, *, failed: bool) -> EndpointState | None:
        """Return what the line or its last word means. If the command failed, that word may end an error message."""
        meaning = self._words.get(line.lower()) or _of_replicas(line)
        if failed:
            return meaning if line else None
        return meaning or self._words.get(line.rsplit(maxsplit=1)[-1].lower() if line else "")

    def _about(self, command: Sequence[str], what: str) -> str:
        """Return a message about a command. The token is hidden: a command has our environment, and may print it."""
        endpoint = self._endpoint
        message = Secrets.within(bearer(endpoint.token_env, endpoint.name)).hidden_in(what)
        return f"endpoint {endpoint.name}: `{shown(command)}` {message}"


def _of_replicas(word: str) -> EndpointState | None:
    """Read `2` as two ready replicas, `1/2` as one of two, and `/2` as none of two (kubectl leaves out a zero)."""
    match = _REPLICAS.fullmatch(word)
    if match is None:
        return None
    ready, wanted = int(match["ready"] or 0), int(match["wanted"])
    if match["ready"] is None:  # a bare number counts ready replicas
        return EndpointState.AWAKE if wanted else EndpointState.PAUSED
    if not wanted:
        return EndpointState.STARTING if ready else EndpointState.PAUSED  # still shutting down, and billed
    return EndpointState.AWAKE if ready else EndpointState.STARTING
