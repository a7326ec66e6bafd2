"""Whether the nodes of a cluster have room for the workers of an endpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Resources = Mapping[str, float]  # by the cluster's names: "CPU", "GPU"


@dataclass(frozen=True, slots=True)
class ClusterRoom:
    """What a cluster says to workers that wait for a place. `never`: waiting would not help."""

    text: str
    never: bool = False


def places(needs: Resources, node: Resources) -> int | None:
    """Return how many workers a node with these resources can hold; None if they need nothing."""
    return min((int(node.get(name, 0.0) / amount + 1e-9) for name, amount in needs.items() if amount > 0), default=None)


def room(needs: Resources, least: int, nodes: Sequence[Resources], *, grows: bool) -> ClusterRoom:
    """Say in one line why workers wait.

    Args:
        needs: the resources of one worker.
        least: how many workers the user wants in any case.
        nodes: all resources of each living node, also those in use.
        grows: whether the cluster may start nodes of other sizes by itself.

    """
    each = [places(needs, node) for node in nodes]
    total = sum(one or 0 for one in each)
    if None in each or total >= least:
        return ClusterRoom(
            f"waiting for a place: a worker needs {_amounts(needs)}, and the cluster has {_listed(nodes)}"
        )
    wanted = f"a worker of {_amounts(needs)}" if least == 1 else f"{least} workers of {_amounts(needs)} each"
    most = f"room for {total}" if total else "no node with room for one"
    remedy = "waiting for it to grow" if grows else "add nodes, or ask for less with workers=, gpus= and cpus="
    return ClusterRoom(
        f"{wanted} cannot be placed: the cluster has {most}, as it has {_listed(nodes)}; {remedy}", not grows
    )


def _listed(nodes: Sequence[Resources]) -> str:
    """Return all nodes by size: "2 nodes of 8 CPU, 1 GPU and 1 node of 2 CPU"."""
    sizes = Counter(_amounts({name: node.get(name, 0.0) for name in ("CPU", "GPU")}) for node in nodes)
    listed = [f"{count} node{'s' if count > 1 else ''} of {size}" for size, count in sizes.items()]
    return " and ".join(listed) or "no nodes"


def _amounts(resources: Resources) -> str:
    known = [f"{amount:g} {name}" for name, amount in resources.items() if amount > 0]
    return ", ".join(known) or "0 CPU"
