"""The process a local cluster lives in: `python -m tests.jobs.cluster_host DASHBOARD_PORT METRICS_PORT`.

Ray reads its switches when it is imported: they have to stand in the environment of a fresh process. Commands come as
lines on stdin, each answered by a line of JSON: `add` a worker node, `lose ID` (SIGKILL). The end of stdin ends it all.
"""

import json
import sys
from typing import Any

from ray.cluster_utils import Cluster

HEAD = {"num_cpus": 0, "include_dashboard": True, "dashboard_host": "127.0.0.1", "object_store_memory": 200_000_000}
WORKER = {"num_cpus": 2, "num_gpus": 1, "object_store_memory": 200_000_000}


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def main(dashboard_port: int, metrics_port: int) -> None:
    ports = {"dashboard_port": dashboard_port, "metrics_export_port": metrics_port}
    cluster = Cluster(initialize_head=True, head_node_args=HEAD | ports)
    try:
        say(ready=True)
        for line in sys.stdin:
            command, *node_ids = line.split()
            if command == "add":
                node = cluster.add_node(**WORKER)
                cluster.wait_for_nodes()
                say(node=node.node_id)
            else:
                (lost,) = (node for node in cluster.worker_nodes if node.node_id in node_ids)
                cluster.remove_node(lost, allow_graceful=False)
                say(lost=node_ids)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
