"""A model server as many write it: FastAPI under uvicorn, with a list or a text as its input."""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

app = FastAPI()


class Inputs(BaseModel):
    """The body of a request."""

    inputs: str | list[str]


@app.get("/health")
async def health() -> dict[str, str]:
    """Answer at once."""
    return {"status": "ok"}


@app.post("/")
async def answer(body: Inputs) -> list[dict[str, object]]:
    """Return a label for each text. `slow` takes a while, `faulty` raises, `refused` is refused."""
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if "slow" in texts:
        await asyncio.sleep(2)
    if "faulty" in texts:
        raise RuntimeError(texts)
    if "refused" in texts:
        raise HTTPException(400, "no such text")
    return [{"label": text.upper(), "score": 1.0} for text in texts]
