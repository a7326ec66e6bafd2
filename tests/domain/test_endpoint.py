from __future__ import annotations

import pytest

from orchestrator.domain.endpoint import lacks_capacity


@pytest.mark.parametrize(
    "said",
    [
        "failed: Scheduling failure: not enough hardware capacity",
        "No capacity available in us-east-1",
        "Insufficient capacity. Try another region",
        "InsufficientInstanceCapacity",
        "pending: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        "sky.exceptions.ResourcesUnavailableError: Failed to provision, resources unavailable",
        "ZONE_RESOURCE_POOL_EXHAUSTED: STOCKOUT",
        "Quota exceeded for accelerator nvidia-a100",
        "the pod is Unschedulable",
    ],
)
def test_messages_about_missing_capacity_are_recognised(said: str) -> None:
    assert lacks_capacity(said)


@pytest.mark.parametrize(
    "said",
    [
        "failed: torch.cuda.OutOfMemoryError: CUDA out of memory. GPU 0 has a total capacity of 14.56 GiB",
        "failed: Endpoint failed to start. Exit code: 3. Reason: no module named tokenizers",
        "initializing, 0 of 1 replicas ready",
        "model not available: 404",
        "",
    ],
)
def test_problems_of_the_endpoint_itself_are_not_taken_for_missing_capacity(said: str) -> None:
    assert not lacks_capacity(said)
