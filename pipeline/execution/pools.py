"""How a run divides a machine or cluster: one pool decodes, one describes. Pure arithmetic, printed before work."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

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
    decode_workers: tuple[int, int] | None = None  # least and most; None: planned from the nodes there are
    describe_workers: tuple[int, int] | None = None
    describe_gpus: float | None = None  # of each describe worker; None: one where there is any
    patience_s: float = 3600.0  # nothing finished for so long ends the run


@dataclass(frozen=True)
class Node:
    """What one machine offers."""

    cpus: float
    gpus: float


@dataclass(frozen=True)
class Pools:
    """At least `decode` actors of `decode_cpus` each and `describe` actors of `describe_cpus` and `describe_gpus` each.

    `*_most` None: no more than that. Else another worker is asked for while work waits for one.
    """

    decode: int
    decode_cpus: float
    describe: int
    describe_cpus: float
    describe_gpus: float
    decode_most: int | None = None
    describe_most: int | None = None

    def bounds(self, pool: Literal["decode", "describe"]) -> tuple[int, int]:
        """(least, most) workers of a pool."""
        least, most = (self.decode, self.decode_most) if pool == "decode" else (self.describe, self.describe_most)
        return least, least if most is None else most

    def __str__(self) -> str:
        device = (
            f"{self.describe_gpus:g} GPU + {self.describe_cpus:g} CPU"
            if self.describe_gpus
            else f"{self.describe_cpus:g} CPU"
        )
        decode, describe = (
            f"{least}" if least == most else f"{least} to {most}"
            for least, most in (self.bounds("decode"), self.bounds("describe"))
        )
        return f"decode {decode} x {self.decode_cpus:g} CPU, describe {describe} x {device}"


@dataclass(frozen=True)
class StageLoad:
    """One pool of workers at a moment: how many there are, how many of them work, what waits, what is done."""

    workers: int
    busy: int
    waiting: int
    done: int


def choose_pools(nodes: Sequence[Node], cluster: ClusterOptions) -> Pools:
    """Explicit sizes if given (an autoscaler may add nodes), else planned from the nodes."""
    if cluster.decode_workers is None and cluster.describe_workers is None:
        return plan_pools(nodes)
    if cluster.decode_workers is None or cluster.describe_workers is None:
        raise UsageError("--decode-workers and --describe-workers are given together or not at all")
    gpus = cluster.describe_gpus if cluster.describe_gpus is not None else float(any(node.gpus for node in nodes))
    (decode, decode_most), (describe, describe_most) = cluster.decode_workers, cluster.describe_workers
    if not (1 <= decode <= decode_most and 1 <= describe <= describe_most) or gpus < 0:
        raise UsageError(
            "expected at least one decode worker and one describe worker, the least before the most, and no negative "
            "share of a GPU"
        )
    return Pools(decode, 1, describe, 1, gpus, decode_most, describe_most)


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
