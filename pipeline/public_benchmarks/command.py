"""What `jobs.evaluate` does for a published benchmark or a table of the paper: check, say the cost, run, write."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pyarrow as pa

from pipeline.config import DEFAULT_MODEL
from pipeline.errors import UsageError
from pipeline.execution.pools import ClusterOptions
from pipeline.models.checkpoints import ModelFiles, resolve_model, resolve_thresholds
from pipeline.public_benchmarks.asker import HOWS, How, ModelChoice
from pipeline.public_benchmarks.benchmark import Benchmark, Harness
from pipeline.public_benchmarks.cost import DISK_GB, cost_lines, expected_cost, hours, shapes_of
from pipeline.public_benchmarks.frames import (
    frames_of,
    is_llava_video,
    prompt_variant_of,
    read_config,
    sampling_of,
)
from pipeline.public_benchmarks.paper import AVERAGES, MODELS, TABLES, preset
from pipeline.public_benchmarks.registry import BENCHMARKS
from pipeline.public_benchmarks.results import write_results
from pipeline.public_benchmarks.run import Job, Plan, Say, answer_all, plan_job
from pipeline.public_benchmarks.settings import BUDGETS, Budget, Setting, paper_model, parse_settings
from pipeline.public_benchmarks.stages import MAX_FRAMES, AskVideo, DecodeVideo
from pipeline.public_benchmarks.table import Verdict, judge, lines
from pipeline.types import Bounds

Show = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """The command line of a published benchmark. None leaves a choice to the model or the benchmark."""

    benchmark: str | None
    preset: str | None
    data: Path
    output: Path
    model: str | None
    encoder: str | None
    thresholds: Path | None
    methods: str
    ps: tuple[float, ...]
    budget: str
    reference: str
    how: str
    harness: Harness
    variant: str | None
    frames: int | None
    missing: str
    device: str
    cluster: ClusterOptions | None
    """None: this process. Else the Ray to join, or to start where it has no address."""
    items: int | None
    margin: float
    """Loss of accuracy, as a share of 1, below which a method counts as no worse."""
    dry_run: bool


@dataclass(frozen=True)
class Prepared:
    """A job whose files are found and whose cost is known."""

    job: Job
    plan: Plan
    model: ModelFiles
    encoder: ModelFiles
    tera: tuple[float, float]


def run_public(options: Options, show: Show, say: Say) -> int:
    """The whole command: table on `show`, progress on `say`. Returns the exit code. Raises UsageError, JobError."""
    _check(options)
    if options.preset:
        return _run_preset(options, options.preset, show, say)
    model = options.model or DEFAULT_MODEL
    settings = parse_settings(options.methods, options.ps, _budget(options), model, options.reference)
    prepared = _prepare(options, BENCHMARKS[str(options.benchmark)], model, settings, options.output)
    _say_cost(prepared, show)
    if not options.dry_run:
        _run_one(options, prepared, show, say)
    return 0


def _check(options: Options) -> None:
    if options.benchmark not in BENCHMARKS and not options.preset:
        raise UsageError(f"--benchmark {options.benchmark}: unknown; expected planted, {', '.join(BENCHMARKS)}")
    if options.how not in HOWS:
        raise UsageError(f"--answer {options.how}: unknown; expected {', '.join(HOWS)}")
    if options.frames is not None and not 1 <= options.frames <= MAX_FRAMES:
        raise UsageError(f"--frames {options.frames}: expected 1 to {MAX_FRAMES}")
    if options.items is not None and options.items < 1:
        raise UsageError(f"--items {options.items}: expected at least 1 question")


def _budget(options: Options) -> Budget:
    for budget in BUDGETS:
        if budget == options.budget:
            return budget
    raise UsageError(f"--budget {options.budget}: unknown; expected {', '.join(BUDGETS)}")


def _prepare(
    options: Options, benchmark: Benchmark, model_name: str, settings: tuple[Setting, ...], output: Path
) -> Prepared:
    choice = ModelChoice(model_name, options.encoder, options.device)
    model, encoder = resolve_model(choice.model, "model"), resolve_model(choice.encoder_name, "encoder")
    choice = replace(choice, thresholds=resolve_thresholds(encoder, options.thresholds))
    config = read_config(model.path)
    is_grid = is_llava_video(config)
    own = prompt_variant_of(config)
    variant = options.variant or (own if own in benchmark.variants else "default")
    if variant not in ("default", *benchmark.variants):
        known = ", ".join(("default", *benchmark.variants))
        raise UsageError(f"--prompt-variant {variant}: {benchmark.name} has none of that name; expected {known}")
    n_frames = options.frames or frames_of(is_grid)
    how: How = next(how for how in HOWS if how == options.how)
    job = Job(
        benchmark=benchmark,
        data=options.data.absolute(),
        choice=choice,
        settings=settings,
        how=how,
        sampling=sampling_of(n_frames, is_grid),
        variant=variant,
        harness=options.harness,
        output=output,
        limit=options.items,
    )
    plan = plan_job(job, job.fingerprint(model, encoder))
    asked = sum(len(video.questions) for video in plan.videos)
    shapes = shapes_of(config, model_name, is_grid)
    tera = expected_cost(shapes, settings, len(plan.videos), asked, n_frames)
    return Prepared(job, plan, model, encoder, tera)


def _say_cost(prepared: Prepared, show: Show) -> None:
    asked, job = sum(len(video.questions) for video in prepared.plan.videos), prepared.job
    name, n_frames = f"{job.benchmark.name} with {job.choice.model}", int(job.sampling.split("=")[1].split(",")[0])
    for line in cost_lines(name, len(prepared.plan.videos), asked, len(job.settings), prepared.tera, n_frames):
        show(line)


def _run_one(options: Options, prepared: Prepared, show: Show, say: Say) -> Verdict:
    job, plan = prepared.job, prepared.plan
    answers = answer_all(job, plan, _execute(options, prepared), say)
    odd = [(question.item_id, question.odd) for question in plan.questions if question.odd and not question.fault]
    verdict = judge(job.benchmark, job.choice.model, answers, options.missing, options.margin, odd, plan.loaded.notices)
    for line in lines(verdict):
        show(line)
    config = {
        "data": str(options.data), "model": prepared.model.identity.id, "encoder": prepared.encoder.identity.id,
        "answer": job.how, "sampling": job.sampling, "prompt_variant": job.variant, "harness": job.harness,
        "budget": options.budget, "missing": options.missing, "device": job.choice.device,
        "settings": [repr(setting) for setting in job.settings],
    }  # fmt: skip
    for path in write_results(job.output, answers, verdict, config):
        show(f"wrote {path}")
    summary = {
        "benchmark": job.benchmark.name,
        "model": job.choice.model,
        "questions": verdict.n_questions,
        "videos": verdict.n_videos,
        "score": {f"{row.method}@{row.p:g}": round(100 * row.score, 4) for row in verdict.rows},
        "llm_flops_ratio": {f"{r.method}@{r.p:g}": r.llm_flops and round(r.llm_flops, 4) for r in verdict.rows},
        "unread": {f"{row.method}@{row.p:g}": row.unread for row in verdict.rows},
        "lost": [item for item, _ in verdict.lost],
    }
    show(json.dumps(summary))
    return verdict


def _execute(options: Options, prepared: Prepared) -> Callable[[Sequence[pa.Table]], Iterator[pa.Table]]:
    job = prepared.job
    model, encoder = prepared.model.identity.resize, prepared.encoder.identity.resize
    decode = partial(DecodeVideo, job.sampling, model, None if encoder == model else encoder, Bounds())
    if options.cluster is None:
        return partial(_here, decode, partial(AskVideo, job.choice, job.settings))
    from pipeline.execution.on_ray import answer_videos  # Ray is imported where it is asked for

    args = (job.sampling, model, None if encoder == model else encoder, Bounds())
    return partial(
        answer_videos, options.cluster, str(job.data), (DecodeVideo, args), (AskVideo, (job.choice, job.settings))
    )


def _here(
    decode: Callable[[], DecodeVideo], ask: Callable[..., AskVideo], rows: Sequence[pa.Table]
) -> Iterator[pa.Table]:
    """One video after the other in this process."""
    decoder, asker = decode(), ask(lambda work: 1)
    for row in rows:
        yield asker(decoder(row))


def _run_preset(options: Options, name: str, show: Show, say: Say) -> int:
    """A table of the paper: its cost before anything is loaded, then every model on every benchmark of it.

    DATA holds a folder per benchmark. --model runs the table on another checkpoint of one of the paper's models.
    """
    rows, names = preset(name).settings, [options.benchmark] if options.benchmark else list(TABLES)
    models = {key: MODELS[key] for key in rows}
    if options.model is not None:
        models = {_paper_key(name, options.model, rows): options.model}
    for line in preset_cost(name, models, rows, names, options.frames):
        show(line)
    for benchmark in names:  # before days of work: are all the files there?
        BENCHMARKS[benchmark].load(options.data / benchmark, "default")
    verdicts = []
    for key, model in models.items():
        for benchmark in names:
            there = replace(options, data=options.data / benchmark)
            prepared = _prepare(there, BENCHMARKS[benchmark], model, rows[key], options.output / key / benchmark)
            _say_cost(prepared, show)
            if not options.dry_run:
                verdicts.append(_run_one(options, prepared, show, say))
    for line in averages(name, verdicts):
        show(line)
    return 0


def _paper_key(name: str, model: str, rows: Mapping[str, object]) -> str:
    key = paper_model(model)
    if key in rows:
        return key
    if name in ("paper-table2", "paper-table4") and not key:
        return "ov-0.5b"  # options that mean something on any model
    raise UsageError(f"--preset {name} --model {model}: the table runs {', '.join(MODELS[key] for key in rows)}")


def preset_cost(
    name: str,
    models: Mapping[str, str],
    rows: Mapping[str, Sequence[Setting]],
    names: Sequence[str],
    frames: int | None,
) -> list[str]:
    """What the table costs on the published sets, from shapes and counts alone: no file is needed."""
    out, total = [], 0.0
    for key, model in models.items():
        is_grid = key == "lv-7b"
        n_frames = frames or frames_of(is_grid)
        for benchmark in names:
            n_questions, n_videos, _ = BENCHMARKS[benchmark].size
            shapes = shapes_of(None, key, is_grid)
            tera = expected_cost(shapes, rows[key], n_videos, n_questions, n_frames)
            total += sum(tera)
            out += cost_lines(f"{benchmark} with {model}", n_videos, n_questions, len(rows[key]), tera, n_frames)
    disk = "; ".join(f"{benchmark}: {DISK_GB[benchmark]}" for benchmark in names if benchmark in DISK_GB)
    return [f"{name} on the published sets:", *out, f"in all {total:.3g} TFLOP, {hours(total):.2g} GPU hours; {disk}"]


def averages(name: str, verdicts: Sequence[Verdict]) -> list[str]:
    """The paper's last column: the plain mean of the benchmarks, per model and setting."""
    out = []
    by_model: dict[str, list[Verdict]] = {}
    for verdict in verdicts:
        by_model.setdefault(verdict.model, []).append(verdict)
    for model, own in by_model.items():
        for rows in zip(*(verdict.rows for verdict in own), strict=True):
            mean = 100 * sum(row.score for row in rows) / len(rows)
            cells = [row.paper for row in rows if row.paper is not None]
            paper = AVERAGES.get(name, {}).get(rows[0].method)
            if paper is None and len(cells) == len(rows):
                paper = sum(cells) / len(cells)
            beside = "-" if paper is None else f"({paper:.2f})"
            out.append(f"{model} {rows[0].method} p={rows[0].p:g}: mean of {len(rows)}: {mean:.2f} {beside}")
    return out
