"""The only file that knows Ray: workers are its actors, frames lie in its object store, calls are actor calls.

Why not Ray Data's own streaming stands in docs/architecture.md.
"""

import inspect
import os
import re
import secrets
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

# Ray's own switches are read when it is imported: token auth is always set explicitly, usage is never reported.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its warnings are about Ray's own inner workings
os.environ.setdefault("RAY_AUTH_MODE", "token")
if os.environ["RAY_AUTH_MODE"] == "token" and not (
    "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ or "RAY_ADDRESS" in os.environ
):
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)  # a Ray of our own on this machine: nobody else needs it

import pyarrow as pa
import ray
from ray._private import ray_constants
from ray.util import metrics

from pipeline.config import DescribeSetup, IndexConfig
from pipeline.errors import JobError, UsageError
from pipeline.execution.pools import ClusterOptions, Node, Pools, choose_pools
from pipeline.execution.stages import MAX_DEATHS, Stages, WorkerSetup
from pipeline.execution.workers import (
    Call,
    Decoded,
    Died,
    Event,
    Finished,
    FramesLost,
    Pool,
    Ready,
    Workers,
)
from pipeline.items.item import Item, Receipt
from pipeline.items.wire import item_to_row, probed_from_record, receipt_from_record, source_to_row
from pipeline.storage.s3 import is_s3

T = TypeVar("T")

REACH_S = 20.0
"""A head node that does not take a connection for so long is taken for absent."""

FRAMES_SHARE = 0.4
"""Of the cluster's object store may hold decoded frames: what is over is for rows on their way and for uneven nodes."""

NODES_EVERY_S = 2.0
"""How often the driver looks which nodes there are."""

THREADS = 256
"""Calls one describe worker may have in hand; the room it is given work by is smaller (workers.py)."""


@contextmanager
def open_on_ray(
    cluster: ClusterOptions, stages: Stages, config: IndexConfig, setup: DescribeSetup, say: Callable[..., None]
) -> Iterator[Workers]:
    """Ray, for the length of a run: what was started is ended."""
    started = time.monotonic()
    _start_ray(cluster)
    try:
        host = _Actors(cluster, config, WorkerSetup(config.sampling, config.bounds, config.output, setup), stages)
        say(f"Ray stands after {time.monotonic() - started:.1f} s; pools: {host.pools()}; workers load", event="pools")
        yield Workers(host, config.batch_size or DEFAULT_BATCH, setup.frame_bytes, cluster.patience_s)
    finally:
        ray.shutdown()


DEFAULT_BATCH = 32
"""Clips a describe worker is given to decode together, when --batch-size does not say: see adatp.engine."""


class _Worker:
    """An actor that holds one stage of a run. Two names, so that `top` and Ray's dashboard tell them apart."""

    def __init__(self, stage: Callable[[WorkerSetup], Any], setup: WorkerSetup) -> None:
        _send_rows_packed()
        self._stage = stage(setup)

    def ready(self) -> Any:
        """A describe worker's questions."""
        return self._stage.questions() if hasattr(self._stage, "questions") else None

    def probe(self, row: pa.Table) -> pa.Table:
        return self._stage.probe(row)

    def decode(self, row: pa.Table) -> tuple[pa.Table | None, tuple[int, pa.Table | None]]:
        """(frames, (bytes, None)) or (None, (0, receipt)): two objects, of which the driver fetches the second."""
        frames, receipt = self._stage.decode(row)
        return frames, (0 if frames is None else frames.nbytes, receipt)

    def describe(self, row: pa.Table, only: Sequence[int] | None, is_trial: bool) -> pa.Table:
        return self._stage.describe(row, only, is_trial)


class _DecodeWorker(_Worker):
    pass


class _DescribeWorker(_Worker):
    pass


class _Actors:
    """The host of a cluster."""

    def __init__(self, cluster: ClusterOptions, config: IndexConfig, setup: WorkerSetup, stages: Stages) -> None:
        self._cluster, self._setup, self._stages = cluster, ray.put(setup), stages
        self._actors: list[Any] = []
        self._calls: dict[Any, tuple[int, Call | None]] = {}  # what is waited for -> worker and call; None: it starts
        self._seen_at = -NODES_EVERY_S
        nodes = _nodes()
        self._pools = choose_pools(nodes, cluster)
        _refuse_impossible(config, cluster, nodes, self._pools)
        self._metrics = _Metrics()

    @property
    def frames_bytes(self) -> int:
        return int(FRAMES_SHARE * ray.cluster_resources().get("object_store_memory", 1 << 30))

    def pools(self) -> Pools:
        """Pools of the nodes there are now: planned ones grow and shrink with them."""
        if time.monotonic() - self._seen_at > NODES_EVERY_S:
            self._seen_at = time.monotonic()
            if nodes := [node for node in _nodes() if node.cpus]:
                self._pools = choose_pools(nodes, self._cluster)
        return self._pools

    def start(self, pool: Pool) -> int:
        of_decode = pool == "decode"
        options = {
            "num_cpus": self._pools.decode_cpus if of_decode else self._pools.describe_cpus,
            "num_gpus": 0 if of_decode else self._pools.describe_gpus,
            "max_concurrency": 1 if of_decode else THREADS,
            "max_restarts": 0,  # a worker that died is replaced, once it is known what it had in hand
        }
        stage = self._stages.decode if of_decode else self._stages.describe
        kind = _DecodeWorker if of_decode else _DescribeWorker
        actor = ray.remote(kind).options(**options).remote(stage, self._setup)
        self._actors.append(actor)
        worker = len(self._actors) - 1
        self._calls[actor.ready.remote()] = worker, None
        return worker

    def stop(self, worker: int) -> None:
        self._actors[worker] = None  # the last handle: Ray ends the actor

    def call(self, worker: int, call: Call) -> None:
        actor = self._actors[worker]
        if call.what == "describe":
            ref = actor.describe.remote(call.frames, call.only, call.is_trial)
        elif isinstance(call.work, Item):
            call.frames, ref = actor.decode.options(num_returns=2).remote(item_to_row(call.work))
        else:
            ref = actor.probe.remote(source_to_row(call.work))
        self._calls[ref] = worker, call

    def count_videos(self, statuses: Mapping[str, int]) -> None:
        self._metrics.add_videos(statuses)

    def wait(self, timeout_s: float) -> list[Event]:
        if not self._calls:
            time.sleep(min(timeout_s, 0.05))
            return []
        refs = list(self._calls)
        ready, _ = ray.wait(refs, num_returns=1, timeout=timeout_s, fetch_local=False)
        if ready:
            ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0, fetch_local=False)
        events: list[Event] = []
        for ref in ready:
            if ref in self._calls:  # else its worker turned out to be dead just now
                events += self._event(ref, *self._calls.pop(ref))
        return events

    def _event(self, ref: Any, worker: int, call: Call | None) -> list[Event]:
        try:
            value = ray.get(ref)
        except ray.exceptions.RayError as error:
            return self._failed(error, worker, call)
        if call is None:
            return [Ready(worker, value)]
        if call.what == "decode":
            n_bytes, receipt = value
            frames, call.frames = call.frames, None
            if receipt is None:
                return [Decoded(worker, call, frames, n_bytes)]
            value = receipt
        record = value.to_pylist()[0]
        result = probed_from_record(record) if call.what == "probe" else receipt_from_record(record)
        if isinstance(result, Receipt):
            self._metrics.add_item(result)
        return [Finished(worker, call, result)]

    def _failed(self, error: Exception, worker: int, call: Call | None) -> list[Event]:
        """A lost worker or lost frames go on; what raises in a worker is a bug, a lost storage or a broken model."""
        lost = ray.exceptions.ObjectLostError
        if call is not None and (isinstance(error, lost) or isinstance(getattr(error, "cause", None), lost)):
            return [FramesLost(worker, call)]
        said = what_failed(str(error))
        is_death = isinstance(error, (ray.exceptions.RayActorError, ray.exceptions.ActorUnavailableError))
        if not is_death or (call is None and said is not None):
            raise JobError(said or f"a worker failed: {type(error).__name__}") from error
        self._calls = {ref: (who, what) for ref, (who, what) in self._calls.items() if who != worker}
        if self._actors[worker] is not None:
            ray.kill(self._actors[worker])  # one that is only out of reach must not come back
            self._actors[worker] = None
        return [Died(worker)]


def answer_videos(
    cluster: ClusterOptions,
    data: str,
    decode: tuple[type, tuple[Any, ...]],
    ask: tuple[type, tuple[Any, ...]],
    rows: Sequence[pa.Table],
) -> Iterator[pa.Table]:
    """Rows of videos through two pools, one that decodes and one that holds the models: one row each, in any order.

    `decode` and `ask` are a stage's class and arguments; `ask` is also told which attempt this is. Ray ends with the
    rows.
    """
    _start_ray(cluster)
    try:
        nodes = _nodes()
        if sum(node.cpus > 0 for node in nodes) > 1 and not cluster.shared_filesystem:
            raise UsageError(
                f"{data} is a local path, but the cluster has several nodes; expected --shared-filesystem, "
                "if every node sees the same files there"
            )
        pools = choose_pools(nodes, cluster)
        decoders = _Line(min(pools.decode, len(rows)), pools.decode_cpus, 0, *decode)
        askers = _Line(min(pools.describe, len(rows)), pools.describe_cpus, pools.describe_gpus, *ask)
        for row in rows:
            decoders.add(row)
        while decoders.is_at_work or askers.is_at_work:
            decoders.hand_out(room=2 * pools.describe - len(askers.waiting))
            askers.hand_out()
            ready, _ = ray.wait([*decoders.calls, *askers.calls], num_returns=1, fetch_local=False)
            for ref in ready:
                if ref in decoders.calls:
                    if (decoded := decoders.came_back(ref)) is not None:
                        askers.add(decoded)
                elif (answered := askers.came_back(ref)) is not None:
                    yield ray.get(answered)
    finally:
        ray.shutdown()


class _Line:
    """Actors of one stage that take one row at a time; a row whose actor died goes to another."""

    def __init__(self, n: int, cpus: float, gpus: float, stage: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self._make: Callable[[], Any] = lambda: (
            ray.remote(_Callable).options(num_cpus=cpus, num_gpus=gpus).remote(stage, args)
        )
        self._idle = [self._make() for _ in range(n)]
        self.waiting: deque[tuple[Any, int]] = deque()  # rows, and which attempt at each is next
        self.calls: dict[Any, tuple[Any, Any, Any, int]] = {}  # done -> (result, actor, row, attempt)

    @property
    def is_at_work(self) -> bool:
        return bool(self.waiting or self.calls)

    def add(self, row: Any) -> None:
        self.waiting.append((row, 1))

    def hand_out(self, room: int | None = None) -> None:
        while self.waiting and self._idle and (room is None or len(self.calls) < room):
            (row, attempt), actor = self.waiting.popleft(), self._idle.pop()
            result, done = actor.run.options(num_returns=2).remote(row, attempt)
            self.calls[done] = result, actor, row, attempt

    def came_back(self, done: Any) -> Any:
        """The result's reference; None where its actor died."""
        result, actor, row, attempt = self.calls.pop(done)
        try:
            ray.get(done)
        except ray.exceptions.RayActorError as error:
            if (said := what_failed(str(error))) or attempt > MAX_DEATHS:
                raise JobError(said or f"{attempt} workers died on one video") from error
            self._idle.append(self._make())
            self.waiting.appendleft((row, attempt + 1))
            return None
        except ray.exceptions.RayError as error:
            raise JobError(what_failed(str(error)) or f"a worker failed: {type(error).__name__}") from error
        self._idle.append(actor)
        return result


class _Callable:
    """An actor around a stage that is called with a row; one that counts attempts asks this which it is at."""

    def __init__(self, stage: Callable[..., Any], args: tuple[Any, ...]) -> None:
        _send_rows_packed()
        self._attempt = 1
        wants_attempts = len(inspect.signature(stage).parameters) > len(args)
        self._stage = stage(*args, *([lambda work: self._attempt] if wants_attempts else []))

    def run(self, row: pa.Table, attempt: int) -> tuple[pa.Table, None]:
        self._attempt = attempt
        return self._stage(row), None


def _nodes() -> list[Node]:
    return [
        Node(node["Resources"].get("CPU", 0.0), node["Resources"].get("GPU", 0.0))
        for node in ray.nodes()
        if node["Alive"]
    ]


def on_worker(cluster: ClusterOptions, work: Callable[..., T], *args: object) -> T:
    """What `work(*args)` returns on a worker that has what a describe worker has. Ray lasts as long as that.

    Raises JobError, one line, when the worker dies.
    """
    _start_ray(cluster)
    try:
        pools = choose_pools(_nodes(), cluster)
        remote = ray.remote(num_cpus=pools.describe_cpus, num_gpus=pools.describe_gpus, max_retries=0)(work)
        result: T = ray.get(remote.remote(*args))
        return result
    except ray.exceptions.RayError as error:
        raise JobError(what_failed(str(error)) or f"a worker failed: {type(error).__name__}") from error
    finally:
        ray.shutdown()


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
