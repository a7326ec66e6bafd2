"""LiteLLM's batch client: its whole round, in a process of its own because of its warnings. Prints JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import litellm
import openai

url, token, path = sys.argv[1:]
place: Any = {"custom_llm_provider": "openai", "api_base": f"{url}/v1", "api_key": token}
with Path(path).open("rb") as opened:
    file = litellm.create_file(file=opened, purpose="batch", **place)
batch = litellm.create_batch("24h", "/v1/chat/completions", file.id, metadata={"from": "litellm"}, **place)
while batch.status not in {"completed", "failed", "expired", "cancelled"}:
    time.sleep(0.05)
    batch = litellm.retrieve_batch(batch_id=batch.id, **place)
found = {
    "status": batch.status,
    "metadata": batch.metadata,
    "counts": batch.request_counts.to_dict(),
    "lines": litellm.file_content(file_id=batch.output_file_id, **place).content.decode().splitlines(),
    "listed": [one.id for one in litellm.list_batches(limit=5, **place).data] == [batch.id],
    "files": len(litellm.file_list(**place).data),
}
try:
    litellm.cancel_batch(batch_id=batch.id, **place)
except openai.ConflictError as error:
    found["refused"] = str(error)
found["deleted"] = litellm.file_delete(file_id=file.id, **place).deleted
sys.stdout.write(json.dumps(found) + "\n")
