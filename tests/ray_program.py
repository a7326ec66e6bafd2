"""A Ray cluster of several nodes on this machine, told what to do in lines of JSON; it is gone when its input ends.

`{"add": CPUS}` starts a node and answers its number; `{"kill": NUMBER}` kills one with all its processes.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster

QUICK = {  # a lost node is noticed after a second, not after 13
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


def main() -> None:
    folder = sys.argv[1]
    every: dict[str, Any] = {
        "object_store_memory": 80 * 2**20,
        "node_ip_address": "127.0.0.1",
        "temp_dir": folder,
    }
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK, **every}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    nodes: list[Any] = []
    answer({"address": cluster.address})
    for line in sys.stdin:
        match json.loads(line):
            case {"add": cpus}:
                nodes.append(cluster.add_node(num_cpus=cpus, **every))
                answer({"node": len(nodes) - 1})
            case {"kill": number}:
                cluster.remove_node(nodes[number], allow_graceful=False)
                answer({})
    cluster.shutdown()


def answer(value: object) -> None:
    print(json.dumps(value), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
