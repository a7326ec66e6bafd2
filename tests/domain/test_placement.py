"""What a cluster says to workers that wait for a place."""

from __future__ import annotations

import pytest

from orchestrator.domain.placement import ClusterRoom, Resources, places, room

SMALL = {"CPU": 2.0, "memory": 8e9}
LARGE = {"CPU": 8.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("needs", "node", "count"),
    [
        ({"CPU": 1.0, "GPU": 0.0}, SMALL, 2),
        ({"CPU": 1.0, "GPU": 1.0}, SMALL, 0),
        ({"CPU": 3.0}, LARGE, 2),
        ({"GPU": 0.1}, LARGE, 10),
        ({"CPU": 0.0}, LARGE, None),
    ],
)
def test_a_node_holds_as_many_workers_as_its_scarcest_resource_allows(
    needs: Resources, node: Resources, count: int | None
) -> None:
    assert places(needs, node) == count


def test_a_worker_that_fits_somewhere_waits_for_a_free_place() -> None:
    needs = {"CPU": 1.0, "GPU": 0.0}
    assert room(needs, 1, [SMALL, SMALL, LARGE], grows=False) == ClusterRoom(
        "waiting for a place: a worker needs 1 CPU, and the cluster has 2 nodes of 2 CPU and 1 node of 8 CPU, 1 GPU"
    )


def test_workers_that_no_cluster_of_this_size_can_hold_are_refused_with_what_it_has() -> None:
    needs = {"CPU": 2.0, "GPU": 1.0}
    assert room(needs, 1, [SMALL], grows=False) == ClusterRoom(
        "a worker of 2 CPU, 1 GPU cannot be placed: the cluster has no node with room for one, as it has 1 node of "
        "2 CPU; add nodes, or ask for less with workers=, gpus= and cpus=",
        never=True,
    )
    refused = room(needs, 3, [LARGE, SMALL], grows=False)
    assert refused.never
    assert refused.text.startswith("3 workers of 2 CPU, 1 GPU each cannot be placed: the cluster has room for 1, as ")


def test_a_cluster_that_may_grow_is_waited_for() -> None:
    waits = room({"CPU": 1.0}, 1, [], grows=True)
    assert waits == ClusterRoom(
        "a worker of 1 CPU cannot be placed: the cluster has no node with room for one, as it has no nodes; "
        "waiting for it to grow"
    )
