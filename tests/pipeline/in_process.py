"""Real runs without Ray: the stages of pipeline.execution one after the other in this process, and what they did.

Decode children, models, staging and commits are the real ones; only the pools are missing.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import adatp
import pipeline.describing.item_describer
import pipeline.execution.on_ray
from pipeline.config import DescribeSetup, IndexConfig
from pipeline.decoding.decoder import Decoder
from pipeline.describing.item_describer import embed_questions
from pipeline.execution.pools import ClusterOptions, Pools
from pipeline.execution.stages import DecodeStage, DescribeStage, ProbeStage, StagingStage
from pipeline.items.evidence import Questions
from pipeline.items.item import (
    Item,
    Probed,
    Receipt,
    Source,
    item_to_row,
    probed_from_record,
    receipt_from_record,
    source_to_row,
)


@dataclass
class Counts:
    """What a run did. Each count is taken where the work is done."""

    did: Counter[str] = field(default_factory=Counter)  # runs of workers, probes, decodes, models
    opened: set[str] = field(default_factory=set)  # paths given to a decode child


class InProcessWorkers:
    """As pipeline.execution.on_ray.Workers, with one worker of each kind."""

    pools = Pools(decode=1, decode_cpus=1, describe=1, describe_cpus=1, describe_gpus=0)

    def __init__(self, cluster: ClusterOptions, config: IndexConfig, setup: DescribeSetup) -> None:
        self._config, self._setup = config, setup
        self._begun: Counter[str] = Counter()
        self._describe: DescribeStage | None = None
        self._questions: Questions | None = None

    def __enter__(self) -> "InProcessWorkers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def probe(self, sources: Sequence[Source]) -> Iterator[Probed]:
        stage = ProbeStage(self._config.sampling, self._config.bounds)
        for source in sources:
            yield probed_from_record(stage(source_to_row(source)).to_pylist()[0])

    def run_items(self, items: Sequence[Item]) -> Iterator[Receipt]:
        if not items:
            return
        decode = DecodeStage(self._config.bounds, self._setup.model.resize, self._setup.encoder.resize, self._begin)
        self._describe = self._describe or DescribeStage(self._setup, self._begin)
        for item in items:
            staged = self._describe(decode(item_to_row(item)))
            yield receipt_from_record(StagingStage(self._config.output)(staged).to_pylist()[0])

    def count_videos(self, statuses: Mapping[str, int]) -> None:
        """Nobody scrapes a test."""

    def questions(self) -> Questions:
        self._questions = self._questions or embed_questions(self._setup)
        return self._questions

    def _begin(self, name: str) -> int:
        self._begun[name] += 1
        return self._begun[name]


@contextlib.contextmanager
def in_process() -> Iterator[Counts]:
    """`run_index` and `run_ask` within this block start no Ray; what they do is counted."""
    counts = Counts()

    class Counted(InProcessWorkers):
        def __init__(self, *args: Any) -> None:
            counts.did["workers"] += 1
            super().__init__(*args)

    class CountedEncoder(pipeline.describing.item_describer.Encoder):
        def __init__(self, *args: Any) -> None:
            counts.did["models"] += 1
            super().__init__(*args)

    def load(*args: Any, **kwargs: Any) -> Any:
        counts.did["models"] += 1
        return real_load(*args, **kwargs)

    def probe(self: Decoder, path: str, *args: Any, **kwargs: Any) -> Any:
        counts.did["probes"] += 1
        counts.opened.add(path)
        return real_probe(self, path, *args, **kwargs)

    def decode(self: Decoder, path: str, *args: Any, **kwargs: Any) -> Any:
        counts.did["decodes"] += 1
        counts.opened.add(path)
        return real_decode(self, path, *args, **kwargs)

    real_load, real_probe, real_decode = adatp.load, Decoder.probe, Decoder.decode
    places: list[tuple[Any, str, Any]] = [
        (pipeline.execution.on_ray, "Workers", Counted),
        (pipeline.describing.item_describer, "Encoder", CountedEncoder),
        (adatp, "load", load),
        (Decoder, "probe", probe),
        (Decoder, "decode", decode),
    ]
    before = [getattr(where, name) for where, name, _ in places]
    for where, name, counted in places:
        setattr(where, name, counted)
    try:
        yield counts
    finally:
        for (where, name, _), real in zip(places, before, strict=True):
            setattr(where, name, real)
