"""A model server with LitServe, which batches requests of several clients, as a program."""

from __future__ import annotations

import argparse
import time

import litserve

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, required=True)


class Labels(litserve.LitAPI):  # type: ignore[misc]  # it ships no types
    """Labels for texts. `slow` takes a while, `endless` longer than the server allows, `faulty` raises."""

    def setup(self, device: str) -> None:
        time.sleep(2)  # as long as a small model takes to load

    def decode_request(self, request: dict[str, object]) -> object:
        return request["inputs"]

    def predict(self, texts: list[str]) -> list[object]:
        time.sleep(2 * ("slow" in texts) + 8 * ("endless" in texts))
        if "faulty" in texts:
            raise RuntimeError(texts)
        return [[{"label": text.upper(), "score": 1.0}] for text in texts]

    def encode_response(self, output: object) -> object:
        return output


if __name__ == "__main__":
    api = Labels(max_batch_size=4, batch_timeout=0.3)
    server = litserve.LitServer(api, accelerator="cpu", timeout=5)
    server.run(host="127.0.0.1", port=parser.parse_args().port, generate_client_file=False)
