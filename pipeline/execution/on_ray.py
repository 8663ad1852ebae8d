"""The only file that knows Ray: pools of workers, and rows streaming through them one at a time."""

import logging
import os
import re
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

# Ray's own switches are read when it is imported: token auth is always set explicitly, usage is never reported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its warnings are about Ray's own inner workings
os.environ.setdefault("RAY_AUTH_MODE", "token")
# Nothing finished for so long ends the run: a worker hangs, or nodes never come. Ray's half an hour is short for eight
# clips of a large model on a CPU.
os.environ.setdefault("RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S", "3600")
if os.environ["RAY_AUTH_MODE"] == "token" and not (
    "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ or "RAY_ADDRESS" in os.environ
):
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # a Ray of our own on this machine: nobody else needs it

import pyarrow as pa
import ray
from ray._private import ray_constants
from ray.data._internal.execution import streaming_executor_state
from ray.data.exceptions import ExecutionTimeoutError
from ray.util import metrics
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.config import DescribeSetup, IndexConfig
from pipeline.errors import JobError, UsageError
from pipeline.execution.attempts import Attempts
from pipeline.execution.pools import ClusterOptions, Node, Pools, choose_pools
from pipeline.execution.stages import DecodeStage, DescribeStage, ProbeStage, StagingStage
from pipeline.items.evidence import Questions
from pipeline.items.item import (
    Item,
    Probed,
    Receipt,
    Source,
    in_blocks,
    item_to_row,
    probed_from_record,
    receipt_from_record,
    source_to_row,
)
from pipeline.storage.s3 import is_s3

# The driver asks what is finished, what is idle and what has room ten times a second, for 9 ms of CPU each time.
# Workers have a block in hand and one waiting: they do not notice that it asks four times.
streaming_executor_state.WAIT_FOR_TASK_COMPLETION_TIMEOUT_S = 0.25

REACH_S = 20.0
"""A head node that does not take a connection for so long is taken for absent."""


class Workers:
    """Ray, for the length of a run. `with Workers(...) as workers`: what was started is ended."""

    def __init__(self, cluster: ClusterOptions, config: IndexConfig, setup: DescribeSetup) -> None:
        self._cluster, self._config, self._setup = cluster, config, setup
        self._questions: Questions | None = None

    def __enter__(self) -> "Workers":
        _start_ray(self._cluster)
        nodes = _nodes()
        self.pools = choose_pools(nodes, self._cluster)
        _refuse_impossible(self._config, self._cluster, nodes, self.pools)
        self._attempts = _count_attempts()
        self._metrics = _Metrics()
        return self

    def __exit__(self, *exc: object) -> None:
        ray.shutdown()

    def probe(self, sources: Sequence[Source]) -> Iterator[Probed]:
        """Each video's facts and clips, in any order."""
        if not sources:
            return
        blocks = in_blocks([(source_to_row(source), 1) for source in sources], self.pools.decode)
        rows = ray.data.from_blocks(blocks).map_batches(
            ProbeStage,
            fn_constructor_args=(self._config.sampling, self._config.bounds),
            **_pool(min(self.pools.decode, len(blocks)), self.pools.decode_cpus),
        )
        yield from map(probed_from_record, _records(rows))

    def run_items(self, items: Sequence[Item]) -> Iterator[Receipt]:
        """decode -> embed and describe -> stage: one receipt an item, in any order."""
        if not items:
            return
        pools, begin = self.pools, _Begin(self._attempts)
        blocks = in_blocks([(item_to_row(item), len(item.clips)) for item in items], max(pools.decode, pools.describe))
        rows = (
            ray.data.from_blocks(blocks)
            .map_batches(
                DecodeStage,
                fn_constructor_args=(self._config.bounds, self._setup.model.resize, self._setup.encoder.resize, begin),
                **_pool(min(pools.decode, len(blocks)), pools.decode_cpus),
            )
            .map_batches(
                DescribeStage,
                fn_constructor_args=(self._setup, begin),
                **_pool(min(pools.describe, len(blocks)), pools.describe_cpus, pools.describe_gpus),
            )
            .map_batches(
                # A worker that stays: for a task of no cores Ray starts a process, and ends it a second later.
                StagingStage,
                fn_constructor_args=(self._config.output,),
                **_pool(min(pools.describe, len(blocks)), 0),
            )
        )
        for receipt in map(receipt_from_record, _records(rows)):
            self._metrics.add_item(receipt)
            yield receipt

    def count_videos(self, statuses: Mapping[str, int]) -> None:
        """Committed videos, for whoever scrapes this cluster's metrics."""
        self._metrics.add_videos(statuses)

    def questions(self) -> Questions:
        """The recipe's questions as the encoder sees them, made on a worker, once: the driver loads no model."""
        if self._questions is None:
            remote = ray.remote(num_cpus=self.pools.decode_cpus)(_embed_questions)
            self._questions = ray.get(remote.remote(self._setup))
        return self._questions


def answer_videos(
    cluster: ClusterOptions,
    data: str,
    decode: tuple[type, tuple[Any, ...]],
    ask: tuple[type, tuple[Any, ...]],
    rows: Sequence[pa.Table],
) -> Iterator[pa.Table]:
    """Rows of videos through two pools, one that decodes and one that holds the models: one row each, in any order.

    `decode` and `ask` are a stage's class and arguments; `ask` also gets what counts attempts. Ray ends with the rows.
    """
    _start_ray(cluster)
    try:
        nodes = _nodes()
        if sum(node.cpus > 0 for node in nodes) > 1 and not cluster.shared_filesystem:
            raise UsageError(
                f"{data} is a local path, but the cluster has several nodes; expected --shared-filesystem, "
                "if every node sees the same files there"
            )
        pools, begin = choose_pools(nodes, cluster), _Begin(_count_attempts())
        answered = (
            ray.data.from_blocks(list(rows))
            .map_batches(
                decode[0], fn_constructor_args=decode[1], **_pool(min(pools.decode, len(rows)), pools.decode_cpus)
            )
            .map_batches(
                ask[0],
                fn_constructor_args=(*ask[1], begin),
                **_pool(min(pools.describe, len(rows)), pools.describe_cpus, pools.describe_gpus),
            )
        )
        for record in _records(answered):
            yield pa.Table.from_pylist([record])
    finally:
        ray.shutdown()


def _nodes() -> list[Node]:
    return [
        Node(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def _count_attempts() -> Any:
    """Attempts, beside the driver: a node that is lost must not take along what was counted on the others."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(Attempts).remote()


def _embed_questions(setup: DescribeSetup) -> Questions:
    from pipeline.describing.item_describer import embed_questions  # torch, on the worker

    return embed_questions(setup)


class _Metrics:
    """What Prometheus finds at the driver's node, as ray_adatp_*: counters that start from zero with each run."""

    def __init__(self) -> None:
        self._videos = metrics.Counter("adatp_videos", "Videos committed by this run.", tag_keys=("status",))
        self._clips = metrics.Counter("adatp_clips", "Clips that have rows.")
        self._busy = metrics.Counter("adatp_stage_busy_seconds", "Seconds of work, all workers.", tag_keys=("stage",))

    def add_item(self, receipt: Receipt) -> None:
        if receipt.n_clips:
            self._clips.inc(receipt.n_clips)
        for stage, seconds in receipt.seconds.items():
            if seconds > 0:
                self._busy.inc(seconds, {"stage": stage})

    def add_videos(self, statuses: Mapping[str, int]) -> None:
        for status, n in statuses.items():
            self._videos.inc(n, {"status": status})


class _Begin:
    """The attempts of this process as a plain function, for stages that know no Ray."""

    def __init__(self, attempts: Any) -> None:
        self._attempts = attempts

    def __call__(self, work: str) -> int:
        process = ray.get_runtime_context().get_worker_id()
        attempt: int = ray.get(self._attempts.begin.remote(work, process))
        return attempt


def _start_ray(cluster: ClusterOptions) -> None:
    """Join the cluster, or start a Ray of our own. Ray takes over SIGTERM as it starts: the caller's handlers stay."""
    address = cluster.address or os.environ.get("RAY_ADDRESS")
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        if address is not None:
            _reach(address)
        with _log_level_unsaid():
            if address is None:
                # Nothing of it is reachable from outside this machine. Without the switch Ray would take 127.0.0.1 for
                # a wish to be told this machine's address, and listen on all of them.
                ray_constants.ENABLE_RAY_CLUSTER = False
                ray.init(
                    address="local",
                    num_cpus=cluster.num_cpus,
                    num_gpus=cluster.num_gpus,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    log_to_driver=False,
                    logging_level="ERROR",
                )
            else:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except Exception as error:  # whatever keeps Ray from starting comes as RuntimeError, OSError or a bare Exception
        what = "does not start on this machine" if address is None else f"cannot be joined at {address}"
        raise JobError(f"Ray {what}: {type(error).__name__}: {error}") from error
    for signum, handler in handlers.items():
        signal.signal(signum, handler)
    _send_rows_packed.cache_clear()  # what an earlier Ray of this process was told ended with it
    _send_rows_packed()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what stops a run is said once, by the job


@contextmanager
def _log_level_unsaid() -> Iterator[None]:
    """Ray's native part repeats on stderr which log level it was given, before it heeds it: that line is left out."""
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            for line in said:
                if b"RAY_BACKEND_LOG_LEVEL" not in line:
                    os.write(2, line)


def _reach(address: str) -> None:
    """Where nobody listens Ray waits for minutes. OSError when `address` names a host and port that do not answer."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()


def _pack(row: pa.Table) -> pa.Buffer:
    """A row as one message of Arrow's own. Ray would pickle each buffer of its nested columns: five times the CPU."""
    message = pa.BufferOutputStream()
    with pa.ipc.new_stream(message, row.schema) as stream:
        stream.write_table(row)
    return message.getvalue()


def _unpack(message: pa.Buffer) -> pa.Table:
    """The row, in the message's memory. Whoever is sent rows this way sends them this way."""
    _send_rows_packed()
    return pa.ipc.open_stream(message).read_all()


@cache
def _send_rows_packed() -> None:
    ray.util.register_serializer(pa.Table, serializer=_pack, deserializer=_unpack)


def _pool(size: int, cpus: float, gpus: float = 0) -> dict[str, Any]:
    return {
        "batch_size": 1,
        "batch_format": "pyarrow",
        "compute": ray.data.ActorPoolStrategy(size=size),
        "num_cpus": cpus,
        "num_gpus": gpus,
    }


def _records(rows: Any) -> Iterator[dict[str, Any]]:
    """Rows as they come. What raises in a worker is a bug, a lost storage or a broken model: one line, and the end.

    Blocks, not batches: an iterator over batches tells Ray's statistics of each, which costs more than fetching it.
    """
    try:
        for bundle in rows.iter_internal_ref_bundles():
            for block in bundle.blocks:
                yield from ray.get(block.ref).to_pylist()
    except ExecutionTimeoutError as error:
        patience_s = rows.context.execution_no_progress_timeout_s
        raise JobError(
            f"no worker finished anything for {patience_s:g} s: one hangs, or the cluster has no room for its pools; "
            "what is staged is kept; RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S is the patience in seconds"
        ) from error
    except ray.exceptions.RayError as error:
        raise JobError(what_failed(str(error)) or f"a worker failed: {type(error).__name__}") from error


_WRAPPERS = ("RayTaskError", "UserCodeException")  # say no more than that something failed, before or after what did


def what_failed(text: str) -> str | None:
    """The innermost error in what Ray says of a failed task, without its traceback and advice; None if it says none."""
    found = re.findall(r"^\s*(?:[\w.]+\.)?(\w*(?:Error|Exception)): (.+)$", text, re.MULTILINE)
    raised = [(name, message) for name, message in found if name not in _WRAPPERS]
    if not raised:
        return None
    name, message = raised[-1]
    return str(message) if name == JobError.__name__ else f"a worker failed: {name}: {message}"


def _refuse_impossible(config: IndexConfig, cluster: ClusterOptions, nodes: Sequence[Node], pools: Pools) -> None:
    if config.device == "cuda" and not pools.describe_gpus:
        raise UsageError("--device cuda given, but no node of this Ray has a GPU; expected one, or --device cpu")
    local = [place for place in (*config.roots, config.output) if not is_s3(place)]
    if sum(node.cpus > 0 for node in nodes) > 1 and local and not cluster.shared_filesystem:
        raise UsageError(
            f"{local[0]} is a local path, but the cluster has several nodes; expected s3:// paths, "
            "or --shared-filesystem if every node sees the same files there"
        )
