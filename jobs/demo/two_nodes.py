"""Run a command beside a Ray cluster of two nodes on this machine, and end the cluster with it.

    python jobs/demo/two_nodes.py orchestrator run jobs/demo/embed_on_ray.py

Each node has room for one worker. On several machines, `ray start` makes the cluster instead: see docs/ray.md.
"""

from __future__ import annotations

import os
import subprocess
import sys

os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # by default, Ray's workers give way to everything else on the machine
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # its name notwithstanding: everything stays on 127.0.0.1
}

try:
    from ray.cluster_utils import Cluster
except ModuleNotFoundError:
    raise SystemExit("run this with the Python that orchestrator is installed in, with its extra ray") from None

NODE = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}


def main(command: list[str]) -> int:
    """Return the exit code of the command."""
    cluster = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        return subprocess.run(command, env={**os.environ, "RAY_ADDRESS": cluster.address}, check=False).returncode
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
