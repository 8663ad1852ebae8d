"""How a run divides a machine or cluster: one pool decodes, one describes. Pure arithmetic, printed before work."""

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.errors import UsageError

DECODE_SHARE = 4
"""Without a GPU the Video LLM is the slow part: one core in four decodes (at least one), the rest describe."""


@dataclass(frozen=True)
class ClusterOptions:
    """Where a run runs. Without an address: a Ray of its own on this machine, which ends with it."""

    address: str | None = None
    num_cpus: int | None = None
    num_gpus: int | None = None
    shared_filesystem: bool = False
    decode_workers: int | None = None  # None: planned from the nodes there are
    describe_workers: int | None = None
    describe_gpus: float | None = None  # of each describe worker; None: one where there is any


@dataclass(frozen=True)
class Node:
    """What one machine offers."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Pools:
    """`decode` actors of `decode_cpus` each; `describe` actors of `describe_cpus` and `describe_gpus` each."""

    decode: int
    decode_cpus: float
    describe: int
    describe_cpus: float
    describe_gpus: float

    @property
    def of_stages(self) -> dict[str, int]:
        """How many actors work at each stage."""
        return {"decode": self.decode, "embed": self.describe, "describe": self.describe}

    def __str__(self) -> str:
        device = (
            f"{self.describe_gpus:g} GPU + {self.describe_cpus:g} CPU"
            if self.describe_gpus
            else f"{self.describe_cpus:g} CPU"
        )
        return f"decode {self.decode} x {self.decode_cpus:g} CPU, describe {self.describe} x {device}"


def choose_pools(nodes: Sequence[Node], cluster: ClusterOptions) -> Pools:
    """Pools as asked for, or as planned. Asked for, they may exceed the nodes there are: an autoscaler brings more."""
    if cluster.decode_workers is None and cluster.describe_workers is None:
        return plan_pools(nodes)
    if cluster.decode_workers is None or cluster.describe_workers is None:
        raise UsageError("--decode-workers and --describe-workers are given together or not at all")
    gpus = cluster.describe_gpus if cluster.describe_gpus is not None else float(any(node.gpus for node in nodes))
    if cluster.decode_workers < 1 or cluster.describe_workers < 1 or gpus < 0:
        raise UsageError("expected at least one decode worker and one describe worker, and no negative share of a GPU")
    return Pools(cluster.decode_workers, 1, cluster.describe_workers, 1, gpus)


def plan_pools(nodes: Sequence[Node]) -> Pools:
    """The pools that fit `nodes`. With GPUs: one describe actor a GPU, every other core decodes. Without: one describe
    actor a node with most of its cores. A single core is shared half and half.
    """
    cpus, gpus = sum(node.cpus for node in nodes), int(sum(node.gpus for node in nodes))
    if cpus <= 0:
        raise UsageError(
            "no CPU to decode with; expected at least one core in the cluster or --num-cpus; "
            "where an autoscaler brings the nodes, --decode-workers and --describe-workers"
        )
    if gpus:
        if cpus >= gpus + 1:
            return Pools(int(cpus) - gpus, 1, gpus, 1, 1)
        return Pools(1, cpus / 2, gpus, cpus / 2 / gpus, 1)
    workers = [node for node in nodes if node.cpus >= 1]
    smallest = min((node.cpus for node in workers), default=cpus)
    if smallest < 2:
        describers = max(1, len(workers) // 2)
        return Pools(1, 0.5, 1, 0.5, 0) if len(workers) < 2 else Pools(len(workers) - describers, 1, describers, 1, 0)
    decode_each = max(1, int(smallest) // DECODE_SHARE)
    return Pools(decode_each * len(workers), 1, len(workers), int(smallest) - decode_each, 0)
