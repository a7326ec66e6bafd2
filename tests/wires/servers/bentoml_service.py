"""A model server with BentoML, which allows one request at a time and five seconds for it."""

from __future__ import annotations

import time

import bentoml


@bentoml.service(traffic={"timeout": 5, "max_concurrency": 1}, workers=1)
class Labels:
    """Labels for texts. `slow` takes a while, `endless` longer than the server allows, `faulty` raises."""

    def __init__(self) -> None:
        time.sleep(2)  # as long as a small model takes to load

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]  # it ships no types
    def predict(self, inputs: str | list[str]) -> list[dict[str, object]]:
        """Return a label for each text."""
        texts = [inputs] if isinstance(inputs, str) else inputs
        time.sleep(2 * ("slow" in texts) + 8 * ("endless" in texts))
        if "faulty" in texts:
            raise RuntimeError(texts)
        if "refused" in texts:
            raise bentoml.exceptions.InvalidArgument("no such text")
        return [{"label": text.upper(), "score": 1.0} for text in texts]
