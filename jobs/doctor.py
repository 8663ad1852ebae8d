"""Can this machine run the index, and does it tell the truth? Checks what is installed, then indexes planted videos.

    python -m jobs.doctor
    python -m jobs.doctor --model llava-hf/llava-onevision-qwen2-0.5b-ov-hf --output s3://bucket/index

With --model or --encoder both models that the job would use are fetched if need be, loaded on a worker of the cluster
as the job loads them, and made to work once: a frame, a text, eight tokens pruned and unpruned, seconds and memory.

Three videos whose content is known are rendered and indexed by the real job with the builtin models; every caption,
answer, time and cut is compared with the truth, and the index is audited as by jobs.verify. A caption on the wrong
video, drifting times or a dropped segment are named. Exit 0 when all is well, 1 when something is wrong.
"""

import argparse
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

import duckdb

from jobs import cli, index
from pipeline.config import IndexConfig
from pipeline.errors import JobError
from pipeline.index.snapshot import Index
from pipeline.index.verify import verify
from pipeline.ledger.run_report import PACKAGES
from pipeline.models.checkpoints import ModelFiles, known_thresholds, resolve_model
from pipeline.models.ready import make_ready
from pipeline.planted.archive import Truth, render_archive
from pipeline.planted.selftest import find_faults
from pipeline.storage.base import check_writable
from pipeline.storage.places import open_storage


def main(argv: Sequence[str] | None = None, index_job: Callable[[Sequence[str]], int] = index.main) -> int:
    """`index_job`: the jobs.index to make the self-test with."""
    return cli.run(lambda: _doctor(_parser().parse_args(argv), index_job))


def _doctor(args: argparse.Namespace, index_job: Callable[[Sequence[str]], int]) -> int:
    wrong = 0
    for what, finding, is_well in chain(_packages(), _device(), _models(args), _storage(args)):
        print(f"{'ok ' if is_well else 'NO '} {what:<12} {finding}", flush=True)
        wrong += not is_well
    if wrong:
        print(f"{wrong} of these must be put right before the self-test can run")
        return 1
    faults = self_test(args.seed, index_job)
    for fault in faults:
        print(f"NO  self-test    {fault}")
    if not faults:
        print("ok  self-test    captions, answers, times and cuts of 3 planted videos are what was planted")
    return 1 if faults else 0


def self_test(seed: int, index_job: Callable[[Sequence[str]], int]) -> list[str]:
    """Render, index and compare; the faults found."""
    with tempfile.TemporaryDirectory() as folder:
        archive, output = Path(folder) / "archive", Path(folder) / "index"
        truth = render_archive(archive, seed, n_videos=3, seconds=16)
        asked = [flag for question in truth.questions for flag in ("--question", question.text)]
        code = index_job([str(archive), "--output", str(output), "--model", "builtin", *asked])
        if code != 0:
            return [f"jobs.index ended with exit code {code}"]
        return [
            *faults_of(truth, output),
            *(f"jobs.verify: {finding}" for finding in verify(Index.open(str(output))).wrong),
        ]


def faults_of(truth: Truth, output: Path) -> list[str]:
    """What an index of the planted archive says that is not true of it."""
    segments = (
        f"SELECT c.uri, s.start_s, s.end_s FROM '{output}/segments/*.parquet' s JOIN '{output}/clips/*.parquet' c"
    )
    return find_faults(
        truth,
        _rows(f"SELECT uri, start_s, caption FROM '{output}/captions/*.parquet'"),
        _rows(f"SELECT uri, question, answer, scope FROM '{output}/answers/*.parquet'"),
        _rows(f"{segments} USING (clip_id)"),
    )


def _rows(query: str) -> list[dict[str, object]]:
    with duckdb.connect() as connection:
        found = connection.execute(query)
        names = [column[0] for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


Finding = tuple[str, str, bool]


def _packages() -> Iterator[Finding]:
    yield "python", platform.python_version(), (3, 11) <= sys.version_info[:2] < (3, 14)
    for package in PACKAGES:
        try:
            yield package, version(package), True
        except PackageNotFoundError:
            yield package, "not installed; run `make install`", False


def _device() -> Iterator[Finding]:
    from pipeline.models.devices import describe_devices  # torch takes seconds to load

    yield "device", describe_devices(), True


def _models(args: argparse.Namespace) -> Iterator[Finding]:
    """Both models, found, then tried on their headers, then at work; each step only with what passed the one before."""
    encoder = IndexConfig(("-",), "-", args.model, args.encoder).encoder_name
    passed: list[ModelFiles] = []
    for role, name in (("encoder", encoder), ("model", args.model)):
        try:
            files = resolve_model(name, role)
            thresholds = f", {_thresholds(files)}" if role == "encoder" else ""
            make_ready((files,), lambda line: print(f"    {line}", flush=True))
            yield role, f"{files.identity.id}{thresholds}", True
            passed.append(files)
        except JobError as error:
            yield role, str(error), False
    if len(passed) == 2 and (args.model, encoder) != ("builtin", "builtin"):  # the self-test runs those
        yield from _trial(args, passed)


def _trial(args: argparse.Namespace, passed: Sequence[ModelFiles]) -> Iterator[Finding]:
    from pipeline.describing.trial import try_models  # torch takes seconds to load, and Ray too
    from pipeline.execution.on_ray import on_worker

    encoder, model = (files.identity for files in passed)
    try:
        for found in on_worker(index.cluster_of(args), try_models, encoder, model, args.device):
            yield f"{found.role} at work", found.said, found.is_well
    except JobError as error:
        yield "models at work", str(error), False


def _thresholds(encoder: ModelFiles) -> str:
    known = known_thresholds(encoder)
    return "thresholds measured on the archive at the first run" if known is None else str(known)


def _storage(args: argparse.Namespace) -> Iterator[Finding]:
    if args.output is None:
        return
    try:
        check_writable(open_storage(args.output))
        yield "storage", f"{args.output} can be written", True
    except JobError as error:
        yield "storage", str(error), False


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("doctor", __doc__)
    parser.add_argument("--model", default="builtin", help="also load this model and make it work (default: builtin)")
    parser.add_argument(
        "--encoder", help="also load this encoder and make it work (default: the one jobs.index would use with --model)"
    )
    parser.add_argument("--output", metavar="INDEX", help="also check that this place can be written")
    parser.add_argument("--seed", type=int, default=3, help="which videos are planted (default: 3)")
    parser.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], default="auto", help="where the models run (default: auto)"
    )
    index.add_where_it_runs(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
