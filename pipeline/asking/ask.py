"""A new question to an index, in order: choose what is asked, leave out what is answered, look, ask, commit, report.

What is chosen comes from the index alone; only frames that a question is shown are decoded, and vision is encoded once
for all questions of a run. The stages are those of run.py.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.archive.folders import path_of
from pipeline.archive.listing import SCHEMA as LISTING_SCHEMA
from pipeline.archive.listing import Listing
from pipeline.archive.recorded import refuse_strangers
from pipeline.config import CLIPS_PER_ITEM, DescribeSetup, Recipe
from pipeline.errors import UsageError
from pipeline.execution.workers import Executor, Workers
from pipeline.index.commits import commit, roll_forward
from pipeline.index.lock import index_lock
from pipeline.index.runs import last_config, new_run_id, recorded_roots
from pipeline.index.snapshot import Index
from pipeline.index.standing import keep_standing
from pipeline.index.tables import CLIPS
from pipeline.index.where import Where
from pipeline.items.evidence import Questions
from pipeline.items.item import Item
from pipeline.items.stored_clips import again_items, answer_items
from pipeline.ledger import ledger
from pipeline.ledger.cutter import Cutter
from pipeline.ledger.plan import Todo
from pipeline.ledger.prepare import Prepared
from pipeline.ledger.progress import Progress, Say
from pipeline.ledger.run_report import RunReport, Stopwatch, publish
from pipeline.ledger.stream import Staged, receipts_of
from pipeline.ledger.video_work import VideoWork
from pipeline.models.checkpoints import resolve_model
from pipeline.models.ready import make_ready
from pipeline.reading.search import best_relevance, encoder_of, filterable_schema, with_videos
from pipeline.storage.s3 import bucket_and_key, is_s3
from pipeline.types import EMBED, SCOPES, Scope, Target

if TYPE_CHECKING:
    from pipeline.asking.abstain import Place

_VIDEOS_A_COMMIT = 1000

_SHOWN = ["video_id", "clip_id", "start_s", "end_s", "question_id", "question", "answer", "relevance", "evidence"]
_SHOWN += ["abstained", "abstain_below", "question_truncated"]


@dataclass(frozen=True)
class Asking:
    """What one run of jobs.ask is asked to do. `abstain_below` None: the encoder's tau_t."""

    index: str
    questions: tuple[str, ...]  # choices, if any, are part of the text
    scope: Scope = "video"
    where: str | None = None
    top: int | None = None
    standing: bool = False
    model: str | None = None
    abstain_below: float | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if not self.questions:
            raise UsageError("no question given; expected --question TEXT or --questions FILE")
        if any(not question.strip() for question in self.questions):
            raise UsageError("an empty question was given; expected some words")
        if self.scope not in SCOPES:
            raise UsageError(f"--scope {self.scope!r} given; expected video or clip")
        if self.top is not None and self.top < 1:
            raise UsageError(f"--top {self.top} given; expected at least 1")
        if self.standing and (self.where is not None or self.top is not None or self.model is not None):
            raise UsageError(
                "--standing keeps a question for everything that is indexed later, with the index's own model; "
                "expected it without --where, --top and --model"
            )
        if self.where is not None:
            Where(self.where, self.filterable)

    @property
    def targets(self) -> dict[Target, str]:
        return {Target.answer(question, self.scope): question for question in self.questions}

    @property
    def table(self) -> str:
        return f"{self.scope}s"

    @property
    def filterable(self) -> pa.Schema:
        return filterable_schema(self.table)


@dataclass(frozen=True)
class AskReport:
    """Counts are of pairs of a question and what it was asked of; `answers` are the rows asked for, in order."""

    run_id: str
    asked: int
    there: int  # answered by an earlier run
    failed: int  # videos that could not be read
    answers: list[dict[str, Any]]


@dataclass(frozen=True)
class _Run:
    """What every step of one run of jobs.ask has at hand."""

    index: Index
    prepared: Prepared
    recipe: Recipe
    run_id: str
    watch: Stopwatch
    check_lock: Callable[[], None]

    @property
    def cutter(self) -> Cutter:
        return Cutter(self.index, self.prepared, self.recipe)


@dataclass
class _Pending:
    """What one video is still asked: target -> clip_ids ([None] for the whole video)."""

    video: dict[str, Any]
    targets: dict[Target, list[str | None]] = field(default_factory=dict)
    replaced: set[Target] = field(default_factory=set)  # targets whose rows give way to new ones
    whole: set[Target] = field(default_factory=set)  # targets that every clip will have


def prepare_ask(asking: Asking, thresholds_file: Path | None = None) -> Prepared:
    """The index's own configuration, models found, with the videos that have clips as its listing."""
    index = Index.open(asking.index)
    config = replace(last_config(index), output=index.url, device=asking.device, caption_prompt=None, questions=())
    if asking.model is not None:
        config = replace(config, model=asking.model, encoder=config.encoder_name)
    encoder, thresholds = encoder_of(index, None, thresholds_file)
    videos = index.read("videos", filter=pc.field("status").isin(["indexed", "partial"]))
    return Prepared(config, resolve_model(config.model, "model"), encoder, thresholds, _listing_of(videos))


def run_ask(asking: Asking, prepared: Prepared, executor: Executor, say: Say) -> AskReport:
    """Ask, and return the answers, old and new. The run's row is in `runs` already."""
    index, run_id, watch = Index.open(asking.index), new_run_id(), Stopwatch()
    with index_lock(index.storage, say) as check_lock:
        if (finished := roll_forward(index)) is not None:
            say(f"finished commit {finished}, which an earlier run left open")
        identities = (prepared.model.identity, prepared.encoder.identity)
        recipe = Recipe.of(prepared.config, *identities, prepared.thresholds, asking.targets)
        _refuse_other_recipe(index, recipe)
        run = _Run(index, prepared, recipe, run_id, watch, check_lock)
        abstain_below = prepared.thresholds.tau_t if asking.abstain_below is None else asking.abstain_below
        wanted, questions = _chosen(index, asking, run)
        pending, n_there = _pending(index, prepared.listing, wanted, recipe, abstain_below)
        n_asked = sum(len(ids) for p in pending for ids in p.targets.values())
        say(f"{n_asked} to ask, {n_there} answered already", event="plan", run_id=run_id)
        failed = 0
        if pending:
            named = [(p.video["uri"], p.video["root"]) for p in pending]
            refuse_strangers(index.url, named, recorded_roots(index))
            questions = questions or _embed(run)
            failed = _work(pending, run, questions, abstain_below, executor, say)
        if asking.standing:
            keep_standing(index, asking.targets)
        config = replace(prepared.config, questions=asking.questions)
        publish(index, RunReport.of(run_id, "ask", config, index, prepared.listing, watch, failed, len(pending)))
    return AskReport(run_id, n_asked, n_there, failed, _answers(index, asking, wanted))


def _refuse_other_recipe(index: Index, recipe: Recipe) -> None:
    made = set(pc.unique(index.read("clips", ["fingerprint"])["fingerprint"]).to_pylist())
    if made - {recipe.fingerprints[EMBED]}:
        raise UsageError(
            f"the clips of {index.url} were not made as its last run of jobs.index was configured; "
            "expected the same sampling, encoder and --thresholds"
        )


def _chosen(index: Index, asking: Asking, run: _Run) -> tuple[dict[Target, dict[str, str]], Questions | None]:
    """What each question is asked of: target -> {video_id or clip_id: video_id}; and vectors, if choosing took them."""
    rows = index.read("videos", filter=pc.field("status").isin(["indexed", "partial"]))
    names = asking.filterable.names
    if asking.scope == "clip":
        own = [name for name in names if name in CLIPS.schema().names]
        rows = with_videos(index.read("clips", own, pc.field("video_id").isin(rows["video_id"])), rows, names)
    if asking.where is not None:
        rows = rows.filter(pa.array(Where(asking.where, asking.filterable).keep(rows.select(names))))
    ids, videos = rows[f"{asking.scope}_id"].to_pylist(), rows["video_id"].to_pylist()
    everything = dict(sorted(zip(ids, videos, strict=True)))
    if asking.top is None or not everything:
        return dict.fromkeys(asking.targets, everything), None
    questions = _embed(run)
    return _most_relevant(index, asking, everything, questions, asking.top), questions


def _most_relevant(
    index: Index, asking: Asking, everything: dict[str, str], questions: Questions, top: int
) -> dict[Target, dict[str, str]]:
    import numpy as np

    targets = list(asking.targets)
    best = best_relevance(index, f"{asking.scope}_id", np.stack([questions.vectors[target] for target in targets]))
    chosen = {}
    for at, target in enumerate(targets):
        ranked = sorted((key for key in everything if key in best), key=lambda key: (-best[key][at], key))
        chosen[target] = {key: everything[key] for key in sorted(ranked[:top])}
    return chosen


def _pending(
    index: Index, listing: Listing, wanted: dict[Target, dict[str, str]], recipe: Recipe, abstain_below: float
) -> tuple[list[_Pending], int]:
    """What has no answer of this recipe yet, by video; and how many have one.

    Answers of another recipe give way, those of the video's other clips too: a question has one recipe in a video.
    """
    videos = {video["video_id"]: video for video in listing.table.to_pylist()}
    existing = _existing(index, recipe, abstain_below)
    clips = index.read("clips", ["video_id", "clip_id"]).group_by("video_id").aggregate([("clip_id", "count")])
    n_clips = dict(zip(clips["video_id"].to_pylist(), clips["clip_id_count"].to_pylist(), strict=True))
    pending: dict[str, _Pending] = {}
    n_there = 0
    for target, chosen in wanted.items():
        by_video: dict[str, set[str]] = {}
        for key, video_id in chosen.items():
            by_video.setdefault(video_id, set()).add(key)
        for video_id, keys in by_video.items():
            had = existing.get((target, video_id), {})
            if stale := not all(had.values()):
                keys |= had.keys()
            ask = sorted(keys if stale else keys - had.keys())
            n_there += len(keys) - len(ask)
            if ask:
                mine = pending.setdefault(video_id, _Pending(videos[video_id]))
                is_clip = target.scope == "clip"
                mine.targets[target] = [key if is_clip else None for key in ask]
                mine.replaced |= {target} if stale else set()
                mine.whole |= {target} if not is_clip or len(keys | had.keys()) == n_clips[video_id] else set()
    return [pending[video_id] for video_id in sorted(pending)], n_there


def _existing(index: Index, recipe: Recipe, abstain_below: float) -> dict[tuple[Target, str], dict[str, bool]]:
    """(target, video_id) -> {clip_id or video_id: whether its answer is of this recipe and need not be asked again}."""
    ids = [target.id for target in recipe.texts]
    columns = ["video_id", "clip_id", "question_id", "scope", "fingerprint", "abstained", "relevance"]
    found: dict[tuple[Target, str], dict[str, bool]] = {}
    for row in index.read("answers", columns, filter=pc.field("question_id").isin(ids)).to_pylist():
        target = Target(f"answer:{row['question_id']}:{row['scope']}")
        is_current = row["fingerprint"] == recipe.fingerprints.get(target)
        stands = not row["abstained"] or (row["relevance"] or 0.0) < abstain_below
        key = row["clip_id"] or row["video_id"]
        found.setdefault((target, row["video_id"]), {})[key] = is_current and stands
    return found


def _embed(run: _Run) -> Questions:
    from pipeline.describing.item_describer import embed_questions  # torch: a run with nothing to ask never imports it

    return embed_questions(run.cutter.setup(run.run_id))


def _work(
    pending: Sequence[_Pending],
    run: _Run,
    questions: Questions,
    abstain_below: float,
    executor: Executor,
    say: Say,
) -> int:
    """Some videos at a time, then a commit. Workers start with the first frame that must be looked at."""
    failed = n_clips = 0
    staged = Staged(run.index.storage)
    with ExitStack() as stack, Progress(len(pending), say) as progress:
        workers: Workers | None = None
        for first in range(0, len(pending), _VIDEOS_A_COMMIT):
            some = pending[first : first + _VIDEOS_A_COMMIT]
            work = _begin(some, run, questions, abstain_below)
            items = [item for w in work for item in w.items]
            if items and workers is None:
                make_ready((run.prepared.encoder, run.prepared.model), progress.say)
                setup = _setup(run, abstain_below)
                workers = stack.enter_context(executor.open(run.prepared.config, setup, progress.say))
            if workers is not None:
                by_id = {w.source.video_id: w for w in work}
                for receipt in receipts_of(items, workers, staged):
                    by_id[receipt.video_id].answers.append(receipt)
                    n_clips += receipt.n_clips
                    progress.look(workers.loads(), n_clips)
            n_failed = _commit(some, work, run)
            failed += n_failed
            for number in range(len(some)):
                progress.finished(number < n_failed)
    return failed


def _setup(run: _Run, abstain_below: float) -> DescribeSetup:
    return replace(run.cutter.setup(run.run_id), abstain_below=abstain_below)


def _begin(wave: Sequence[_Pending], run: _Run, questions: Questions, abstain_below: float) -> list[VideoWork]:
    ids = pa.array([p.video["video_id"] for p in wave])
    rows = pc.index_in(ids, run.prepared.listing.table["video_id"].combine_chunks()).to_pylist()
    todos = [Todo(row, "again", "answer", tuple(sorted(p.whole)), 0) for row, p in zip(rows, wave, strict=True)]
    work = run.cutter.begin(todos)
    asked_of = {p.video["video_id"]: p for p in wave}
    for w, clips, segments in run.cutter.stored(work):
        _cut(asked_of[w.source.video_id], w, clips, segments, run, questions, abstain_below)
    return work


def _cut(
    p: _Pending,
    w: VideoWork,
    clips: pa.Table,
    segments: pa.Table,
    run: _Run,
    questions: Questions,
    abstain_below: float,
) -> None:
    """One video: what nothing in it is relevant to is staged here and now, the rest becomes items."""
    from pipeline.asking.abstain import nearest, stage_abstentions

    segments = segments.sort_by([("clip_id", "ascending"), ("segment_index", "ascending")])
    places = _places(clips, segments)
    abstained, asked = [], dict[Target, list[str | None]]()
    for target, ids in p.targets.items():
        for clip_id in ids:
            shown = nearest(places[clip_id], questions.vectors[target], target)
            if max(shown.relevance) < abstain_below:
                abstained.append((places[clip_id], shown))
            else:
                asked.setdefault(target, []).append(clip_id)
    w.items = list(_items(w, clips, segments, asked, questions, run.recipe))
    dim = segments.schema.field("embedding").type.list_size
    setup = _setup(run, abstain_below)
    w.answers += stage_abstentions(run.index.storage, w.source, abstained, setup, dim, questions.cut)


def _places(clips: pa.Table, segments: pa.Table) -> dict[str | None, "Place"]:
    """Each clip of a video by its id, and the whole of it as None."""
    from pipeline.asking.abstain import Place

    records = clips.select(["clip_id", "start_s", "end_s"]).to_pylist()
    whole = (min(r["start_s"] for r in records), max(r["end_s"] for r in records))
    places: dict[str | None, Place] = {None: Place(None, *whole, segments)}
    for r in records:
        mine = segments.filter(pc.field("clip_id") == r["clip_id"])
        places[r["clip_id"]] = Place(r["clip_id"], r["start_s"], r["end_s"], mine)
    return places


def _items(
    w: VideoWork,
    clips: pa.Table,
    segments: pa.Table,
    asked: dict[Target, list[str | None]],
    questions: Questions,
    recipe: Recipe,
) -> Iterator[Item]:
    """Whole videos: the frames that are shown. Clips: those asked the same questions go together."""
    videos = {target: questions.vectors[target] for target in asked if target.asks_video}
    if videos:
        yield from answer_items(w.source, clips, segments, videos, recipe.fingerprints)
    targets_of: dict[str | None, list[Target]] = {}
    for target, ids in asked.items():
        for clip_id in ids if target.scope == "clip" else []:
            targets_of.setdefault(clip_id, []).append(target)
    for targets in sorted({tuple(sorted(found)) for found in targets_of.values()}):
        ids = [clip_id for clip_id, found in targets_of.items() if tuple(sorted(found)) == targets]
        mine = pc.field("clip_id").isin(ids)
        yield from again_items(
            w.source, clips.filter(mine), segments.filter(mine), targets, recipe.fingerprints, CLIPS_PER_ITEM
        )


def _commit(wave: Sequence[_Pending], work: Sequence[VideoWork], run: _Run) -> int:
    """One commit. A video of which something could not be read keeps the answers it had. Returns how many those are."""
    drops: list[tuple[str, str | None]] = []
    inputs, rows, errors, failed = list[str](), [], list[dict[str, Any]](), 0
    for p, w in zip(wave, work, strict=True):
        outcome = ledger.Outcome(
            w.listed, w.todo, None, answers=w.answers, before=w.before, fingerprints=run.recipe.fingerprints
        )
        errors += ledger.error_records(outcome, run.run_id)
        run.watch.add_video(None, w.answers)
        is_failed = bool(outcome.failures)
        failed += is_failed
        if is_failed and p.replaced:
            continue
        inputs += [receipt.item_key for receipt in w.answers if receipt.is_staged]
        drops += [(w.source.video_id, target.subkey) for target in p.replaced]
        if not is_failed:
            rows.append(ledger.video_record(outcome, run.run_id))
    run.check_lock()
    drop = {"answers": drops} if drops else {}
    commit(run.index, inputs, ledger.videos_table(rows), ledger.errors_table(errors), drop)
    return failed


def _answers(index: Index, asking: Asking, wanted: dict[Target, dict[str, str]]) -> list[dict[str, Any]]:
    """The answers asked for, by question in the order given, then by name and time."""
    names = index.read("videos", ["video_id", "name"]).to_pylist()
    name_of = {video["video_id"]: video["name"] for video in names}
    order = {target.id: at for at, target in enumerate(asking.targets)}
    mine = pc.field("question_id").isin(list(order)) & (pc.field("scope") == asking.scope)
    rows = index.read("answers", _SHOWN, filter=mine).to_pylist()
    kept = [
        {"name": name_of[row["video_id"]], **row}
        for row in rows
        if (row["clip_id"] or row["video_id"]) in wanted[Target(f"answer:{row['question_id']}:{asking.scope}")]
    ]
    return sorted(kept, key=lambda row: (order[row["question_id"]], row["name"], row["start_s"]))


def _listing_of(videos: pa.Table) -> Listing:
    """The ledger's videos as if listed now, with the version that was indexed: a file that changed since is refused."""
    rows = [
        {name: video[name] for name in ("video_id", "uri", "name", "root", "version")}
        | {"size_bytes": video["size_bytes"] or 0, "modified_us": 0, "path": _path_of(video["uri"])}
        for video in videos.to_pylist()
    ]
    return Listing(pa.Table.from_pylist(rows, schema=LISTING_SCHEMA), 0, ())


def _path_of(uri: str) -> bytes:
    return bucket_and_key(uri)[1].encode() if is_s3(uri) else path_of(uri)
