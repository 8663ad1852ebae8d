"""lmms-eval's view of the models: `generate_until` over prompts that lmms-eval wrote, one method at one budget.

Frames, prompt layout, segments, relevance and pruning are those of `jobs.evaluate` (asker.py). A video that does not
decode is answered with an empty text and counted; it is never a sentence that a parser could read a letter from.
"""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lmms_eval.api.instance import GenerationResult, TokenCounts
from lmms_eval.api.model import lmms

from adatp import Result
from pipeline.config import DEFAULT_MODEL
from pipeline.decoding.decoder import Decoder
from pipeline.errors import UsageError, VideoError
from pipeline.lmms.tasks import SUFFIX
from pipeline.models.checkpoints import resolve_model
from pipeline.public_benchmarks.asker import Ask, Asker, ModelChoice, Seen
from pipeline.public_benchmarks.benchmark import stem_of
from pipeline.public_benchmarks.frames import frames_of, is_llava_video, read_config, sampling_of
from pipeline.public_benchmarks.settings import BUDGETS, NONE, Setting, parse_settings
from pipeline.public_benchmarks.stages import decode_frames
from pipeline.types import ClipFrames

MAX_NEW_TOKENS = 1024
"""Where a task states none, as lmms-eval's LLaVA wrappers have it."""


@dataclass(frozen=True)
class Asked:
    """One request of lmms-eval, and what identifies its item for statistics and for random methods."""

    place: int
    path: str
    ask: Ask
    task: str
    doc_id: int


class AdaTP(lmms):  # type: ignore[misc]  # lmms-eval ships no types
    """`--model adatp --model_args model=...,method=onsets,p=1`.

    Args:
        model: builtin, a local path or a hub id; `pretrained` is the same.
        encoder: of segments and relevance. None: the model's own.
        method, p, budget, reference: as of jobs.evaluate's --methods, --p, --budget and --reference.
        frames: per video. None: 32, LLaVA-Video 20.
        log: a Parquet file for tokens, FLOPs and times per item, keyed by task and doc_id.
    """

    is_simple = True

    def __init__(
        self,
        model: str | None = None,
        pretrained: str | None = None,
        encoder: str | None = None,
        method: str = "adatp",
        p: float = 1.0,
        budget: str = "p",
        reference: str = "adatp",
        frames: int | None = None,
        log: str | None = None,
        device: str = "auto",
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        **unknown: object,
    ) -> None:
        super().__init__()
        if unknown:
            raise UsageError(f"--model_args {', '.join(unknown)}: unknown; expected model, method, p, frames, log ...")
        chosen = next((b for b in BUDGETS if b == budget), None)
        if chosen is None:
            raise UsageError(f"--model_args budget={budget}: unknown; expected {', '.join(BUDGETS)}")
        name = model or pretrained or DEFAULT_MODEL
        self._setting = parse_settings(method, [float(p)], chosen, name, reference)[-1] if method != "none" else NONE
        is_grid = is_llava_video(read_config(resolve_model(name, "model").path))
        self._sampling = sampling_of(int(frames or frames_of(is_grid)), is_grid)
        self._asker = Asker(ModelChoice(name, encoder, device))
        self._asker.check([self._setting])
        self._log = Path(log) if log else None
        self.failed: dict[str, str] = {}
        """Videos that could not be read, with the reason."""

    def generate_until(self, requests: Sequence[Any]) -> list[GenerationResult]:
        """One text per request, in their order. Requests on one video share its encoding."""
        asked = [self._asked(place, request) for place, request in enumerate(requests)]
        by_path: dict[str, list[Asked]] = {}
        for one in asked:
            by_path.setdefault(one.path, []).append(one)
        found: dict[int, GenerationResult] = {}
        rows: list[dict[str, object]] = []
        with Decoder() as decoder:
            for path, group in by_path.items():
                for one, result, error in self._answers(decoder, path, group):
                    found[one.place] = _result_of(result)
                    rows.append({"task": one.task, "doc_id": one.doc_id, "error": error, **_costs(result)})
        self._write_log(rows)
        for path, why in self.failed.items():
            print(f"adatp: {path}: {why}; answered with an empty text")
        return [found[place] for place in range(len(asked))]

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError(
            "adatp answers generate_until tasks; for likelihoods use jobs.evaluate --answer letters"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError("adatp answers one question at a time; it has no tasks of several rounds")

    def _asked(self, place: int, request: Any) -> Asked:
        prompt, arguments, doc_to_visual, doc_id, task, split = request.args
        doc = self.task_dict[task][split][doc_id]
        visuals = doc_to_visual(doc)
        path = visuals[0] if len(visuals) == 1 and isinstance(visuals[0], str) else ""
        stem, key = stem_of(str(doc["question"])) if "question" in doc else prompt, task.removesuffix(SUFFIX)
        length = int(arguments.get("max_new_tokens", MAX_NEW_TOKENS))
        return Asked(place, path, Ask(f"{key}/{doc_id}", prompt, stem, None, length), task, doc_id)

    def _answers(
        self, decoder: Decoder, path: str, group: Sequence[Asked]
    ) -> Iterator[tuple[Asked, Result | None, str]]:
        """Each request of one video with its result, or with why there is none."""
        try:
            seen = self._asker.see(self._frames(decoder, path), [self._setting])
        except VideoError as error:
            self.failed[path] = f"{type(error).__name__}: {error}"
            for one in group:
                yield one, None, self.failed[path]
            return
        refused = {one.place: self._asker.refusal(one.ask) for one in group}
        for one in (one for one in group if refused[one.place]):
            yield one, None, refused[one.place]
        plain = [one for one in group if not refused[one.place]]
        results = self._asked_of(seen, [one.ask for one in plain])
        for one in plain:
            yield one, results[one.ask.key, self._setting], ""

    def _asked_of(self, seen: Seen, asks: Sequence[Ask]) -> dict[tuple[str, Setting], Result]:
        return self._asker.answer(seen, asks, [self._setting])

    def _frames(self, decoder: Decoder, path: str) -> ClipFrames:
        decoded = decode_frames(decoder, os.path.abspath(path), self._sampling, *self._asker.resizes)
        return decoded.clips[0]

    def _write_log(self, rows: list[dict[str, object]]) -> None:
        if self._log is not None and rows:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            beside = self._log.with_name(f"{self._log.name}.{self.rank}.{time.time_ns()}.parquet")
            pq.write_table(pa.Table.from_pylist(rows), beside)


def _result_of(result: Result | None) -> GenerationResult:
    if result is None:
        return GenerationResult("")
    mean = sum(result.visual_tokens_per_layer) / len(result.visual_tokens_per_layer)
    counts = TokenCounts(input_tokens=round(mean) + result.n_text_tokens, output_tokens=len(result.token_ids))
    return GenerationResult(result.text, counts)


def _costs(result: Result | None) -> dict[str, object]:
    if result is None:
        return {}
    return {
        "n_visual_tokens": result.n_visual_tokens,
        "n_text_tokens": result.n_text_tokens,
        "visual_tokens_per_layer": list(result.visual_tokens_per_layer),
        **{f"{name}_flops_ratio": value for name, value in asdict(result.flops).items()},
        "prefill_ms": result.prefill_ms,
        "answer_ms": result.decode_ms,
    }
