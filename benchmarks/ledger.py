"""What an archive of 100,000 videos costs before any work: `python -m benchmarks.ledger [--videos N] [--output FILE]`.

Measured in fresh processes, thrice by turns, medians shown; over a made-up archive (empty files, 1,000 to a folder) and
an index that holds it all:

    bare         os.scandir and stat of every file, nothing kept: the floor for any listing
    listing      pipeline.archive.listing.list_archive
    ledger       reading of `videos` what a plan needs
    commit       a wave of 1,000 changed videos replaced in the ledger
    no-op        all of jobs.index when nothing has changed: listing, plan, books, its row in `runs` (builtin model)
    first night  listing, plan and commit of an archive that is all new and left for later, as by --limit
    new prompt   listing and plan when every video is owed a caption
    s3           with --s3: bare pages of list_objects_v2, the listing, and a no-op run over archive and index in S3, on
                 a local moto server, whose own work is most of the wall time

Seconds are wall and CPU, memory is the growth of the peak resident size; bytes a video are the slope between a
hundredth of the videos and all, because some tens of MB are code that is loaded once. Ends with one JSON line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from pipeline.archive.listing import list_archive
from pipeline.config import IndexConfig
from pipeline.execution.in_process import InProcess
from pipeline.index.commits import commit
from pipeline.index.snapshot import Index
from pipeline.index.tables import VIDEOS
from pipeline.ledger.committer import Committer, Pace
from pipeline.ledger.owed import ledger_of, recipe_for
from pipeline.ledger.plan import plan_run
from pipeline.ledger.prepare import prepare
from pipeline.run import run_index
from pipeline.storage.s3 import list_objects

Numbers = dict[str, float]


def measure(work: Callable[[], int]) -> Numbers:
    """Seconds and peak memory of `work`, which returns how many videos it saw."""
    before_bytes = peak_bytes()
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    n_videos = work()
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    grown_bytes = peak_bytes() - before_bytes
    return {"videos": n_videos, "wall_s": wall_s, "cpu_s": cpu_s, "grown_bytes": grown_bytes}


def peak_bytes() -> int:
    """Peak resident size of this process alone (getrusage would start from the parent's)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def by_turns(places: dict[str, str], environment: dict[str, str] | None = None) -> dict[str, Numbers]:
    """The median of three measurements of each, taken in turns so that a busy machine hurts all alike."""
    taken = [{what: in_fresh_process(what, where, environment) for what, where in places.items()} for _ in range(3)]
    return {
        what: {name: statistics.median(round[what][name] for round in taken) for name in taken[0][what]}
        for what in places
    }


def bare(folder: str) -> int:
    n_videos, pending = 0, [f"{folder}/archive"]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    n_videos += entry.stat().st_size == 0
    return n_videos


def listing(folder: str) -> int:
    return len(list_archive([f"{folder}/archive"]).table)


def ledger(folder: str) -> int:
    return len(ledger_of(Index.open(f"{folder}/index")))


def wave(folder: str) -> int:
    index = Index.open(f"{folder}/index")
    changed = index.read("videos").slice(0, 1000)
    commit(index, videos=changed)
    return len(changed)


def nothing_new(folder: str) -> int:
    return no_op(job(folder))


def no_op(config: IndexConfig) -> int:
    return run_index(prepare(config), InProcess(), "index", lambda line, /, **facts: None).listed


def first_night(folder: str) -> int:
    with tempfile.TemporaryDirectory() as place:
        prepared = prepare(replace(job(folder), output=f"{place}/index"))
        index = Index.create(f"{place}/index")
        recipe = recipe_for(prepared, index)
        plan = plan_run(prepared.listing.table, ledger_of(index), recipe, None, prepared.listing.covers)
        Committer(index, prepared, recipe, "run", lambda: None, Pace()).commit_pending(plan.todo)
        return index.snapshot().n_rows("videos")


def new_prompt(folder: str) -> int:
    prepared, index = prepare(replace(job(folder), caption_prompt="What moves?")), Index.open(f"{folder}/index")
    recipe = recipe_for(prepared, index)
    return len(plan_run(prepared.listing.table, ledger_of(index), recipe, None, prepared.listing.covers).todo)


def job(folder: str) -> IndexConfig:
    return IndexConfig(roots=(f"{folder}/archive",), output=f"{folder}/index", model="builtin")


def s3_job(archive: str) -> IndexConfig:
    return IndexConfig(roots=(archive,), output=archive.replace("/archive/", "/index"), model="builtin")


def bare_s3(uri: str) -> int:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return sum(1 for _ in list_objects(bucket, prefix))


WORK: dict[str, Callable[[str], int]] = {
    "bare": bare,
    "listing": listing,
    "ledger": ledger,
    "commit": wave,
    "no-op": nothing_new,
    "first night": first_night,
    "new prompt": new_prompt,
    "s3 bare": bare_s3,
    "s3 listing": lambda uri: len(list_archive([uri]).table),
    "s3 no-op": lambda uri: no_op(s3_job(uri)),
    "s3 index": lambda uri: make_index(s3_job(uri)),
}


LOCAL = ("bare", "listing", "ledger", "commit", "no-op", "first night", "new prompt")


def make_archive(folder: str, n_videos: int) -> None:
    for number in range(n_videos):
        below = Path(folder, "archive", f"camera_{number // 1000:03d}", "2026-01")
        if number % 1000 == 0:
            below.mkdir(parents=True)
        (below / f"recording_{number:07d}.mp4").touch()


def make_index(config: IndexConfig) -> int:
    """The ledger of an index in which every video of the archive is indexed."""
    prepared, index = prepare(config), Index.create(config.output)
    recipe = recipe_for(prepared, index)
    stages = [{"stage": stage, "fingerprint": recipe.fingerprints[stage]} for stage in recipe.wanted]
    constant = {"size_bytes": 0, "container": "mp4", "codec": "h264", "width": 1920, "height": 1080, "n_clips": 4}
    constant |= {"status": "indexed", "attempts": 0, "fingerprints": stages, "run_id": "20260101T000000-00000000"}
    constant |= {"duration_s": 120.0, "indexed_at": datetime.now(UTC), "decoder": "decord", "decode_coverage": 1.0}
    listed = prepared.listing.table.select(["video_id", "uri", "name", "root", "version"])
    rows = [{**row, **constant} for row in listed.to_pylist()]
    commit(index, videos=pa.Table.from_pylist(rows, schema=VIDEOS.schema()))
    return len(rows)


def in_fresh_process(what: str, where: str, environment: dict[str, str] | None = None) -> Numbers:
    command = [sys.executable, "-m", "benchmarks.ledger", "--only", what, "--where", where]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, **(environment or {})}
    )
    numbers: Numbers = json.loads(done.stdout)
    return numbers


def measure_s3(n_videos: int) -> dict[str, Numbers]:
    import boto3

    from tests.s3 import BUCKET, s3_server

    with s3_server() as environment:
        client = boto3.client("s3", endpoint_url=environment["AWS_ENDPOINT_URL"], aws_access_key_id="k",
                              aws_secret_access_key="s", region_name="us-east-1")  # fmt: skip
        for number in range(n_videos):
            client.put_object(Bucket=BUCKET, Key=f"archive/camera_{number // 1000}/recording_{number:07d}.mp4")
        where = f"s3://{BUCKET}/archive/"
        in_fresh_process("s3 index", where, environment)
        return by_turns(dict.fromkeys(("s3 bare", "s3 listing", "s3 no-op"), where), environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--s3", type=int, default=0, metavar="N", help="also list N objects of a local S3 server")
    parser.add_argument("--output", type=Path, help="write the JSON here as well")
    parser.add_argument("--only", choices=WORK, help=argparse.SUPPRESS)
    parser.add_argument("--where", help=argparse.SUPPRESS)
    parser.add_argument("--s3-alone", action="store_true", help="leave the local measurements out")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(lambda: WORK[args.only](args.where))))
        return
    numbers: dict[str, Numbers] = {}
    if not args.s3_alone:
        with tempfile.TemporaryDirectory() as folder:
            numbers = measure_local(f"{folder}/all", args.videos)
            few = measure_local(f"{folder}/few", args.videos // 100)
        for what, n in numbers.items():
            more = n["videos"] - few[what]["videos"]
            n["bytes_per_video"] = (n["grown_bytes"] - few[what]["grown_bytes"]) / more if more else 0.0
    if args.s3:
        numbers |= measure_s3(args.s3)
    print(f"{'':<12}{'videos':>9}{'wall s':>9}{'CPU s':>9}{'MB':>7}{'bytes a video':>15}")
    for what, n in numbers.items():
        per_video = f"{n['bytes_per_video']:>15,.0f}" if "bytes_per_video" in n else ""
        seconds = f"{n['wall_s']:>9.2f}{n['cpu_s']:>9.2f}{n['grown_bytes'] / 1e6:>7.0f}"
        print(f"{what:<12}{n['videos']:>9,.0f}{seconds}{per_video}")
    ratios = {}
    if not args.s3_alone:
        ratios["listing_over_bare_cpu"] = numbers["listing"]["cpu_s"] / numbers["bare"]["cpu_s"]
    if args.s3:
        for what in ("listing", "no-op"):
            ratios[f"s3_{what}_over_bare_wall"] = numbers[f"s3 {what}"]["wall_s"] / numbers["s3 bare"]["wall_s"]
    from benchmarks import machine  # torch: no part of what is measured

    report = {"benchmark": "ledger", **ratios, "numbers": numbers, **machine.describe()}
    if args.output:
        args.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))


def measure_local(folder: str, n_videos: int) -> dict[str, Numbers]:
    Path(folder).mkdir()
    make_archive(folder, n_videos)
    make_index(job(folder))
    in_fresh_process("bare", folder)  # warms the directory cache for all
    return by_turns(dict.fromkeys(LOCAL, folder))


if __name__ == "__main__":
    main()
