"""Export what an index holds to other programs: subtitles, tables, edit lists, chapters, cut clips, contact sheets.

    python -m jobs.export --index INDEX --what captions --format srt --output subtitles/
    python -m jobs.export --index INDEX --what hits --text "a boat" --merge 2 --format edl --output boats.edl
    python -m jobs.export --index INDEX --what hits --text "a boat" --clips --output boats/
    python -m jobs.export --index INDEX --what segments --format sheet --output sheets/

Reads only; takes no lock. csv and jsonl are one file (- is stdout). vtt, srt, chapters, edl and otio are one file where
--output ends like the format (.srt); otherwise --output is a folder with one file for each video, named as the archive
is. Clips are re-encoded to exactly the frames of the span; with --copy they are quick and unchanged, and begin at the
key frame before it: clips.csv in the folder says which.
Exit codes: 0 written; 2 bad usage, one line, before any work; 3 some clips could not be cut, clips.csv says why.
"""

import argparse
import csv
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from jobs import cli
from pipeline.archive.recorded import refuse_strangers
from pipeline.errors import UsageError
from pipeline.exporting.clips import CutClip, cut_clips
from pipeline.exporting.files import names_of, write_whole
from pipeline.exporting.rates import parse_rate, shown_rate
from pipeline.exporting.rows import as_csv, as_jsonl, cell
from pipeline.exporting.sheets import sheets_of
from pipeline.exporting.spans import TABLES, Span, by_video, spans_of, spans_of_hits
from pipeline.exporting.subtitles import as_chapters, as_srt, as_vtt
from pipeline.exporting.timelines import as_edl, as_otio, edl_rate
from pipeline.index.runs import recorded_roots
from pipeline.index.snapshot import Index
from pipeline.reading.finding import Finder

_TABLE_FORMATS: dict[str, Callable[[Sequence[Span]], str]] = {"csv": as_csv, "jsonl": as_jsonl}
_ONE_VIDEO: dict[str, Callable[[Sequence[Span]], str]] = {"vtt": as_vtt, "srt": as_srt, "chapters": as_chapters}
_SUFFIX = {"chapters": ".chapters.txt", "sheet": ".jpg"}
FORMATS = (*_ONE_VIDEO, *_TABLE_FORMATS, "edl", "otio", "sheet")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(lambda: _export(_parser().parse_args(argv)))


def _export(args: argparse.Namespace) -> int:
    _refuse_odd_flags(args)
    index = Index.open(args.index)
    spans = [span.padded(args.pad) for span in _spans(index, args)]
    if not spans:
        print(f"nothing to export: no {args.what} match", file=sys.stderr)
        return 0
    if args.clips:
        refuse_strangers(index.url, ((s.video.uri, s.video.root) for s in spans), recorded_roots(index))
        return _clips(spans, Path(args.output), args.copy)
    if args.format == "sheet":
        return _write_sheets(index, spans, args)
    if args.format in _TABLE_FORMATS:
        return _write_table(_TABLE_FORMATS[args.format](spans), len(spans), args.output)
    return _write_timed([s for s in spans if not s.facts.get("abstained")], args)


def _refuse_odd_flags(args: argparse.Namespace) -> None:
    if (args.what == "hits") != (args.text is not None):
        raise UsageError(f"--what {args.what} {'without' if args.text is None else 'with'} --text; hits take a text")
    if args.copy and not args.clips:
        raise UsageError("--copy is given without --clips; it says how clips are cut")
    if args.rate is not None and args.format != "edl":
        raise UsageError("--rate is given without --format edl; other formats keep each video's own times")
    if args.output == "-" and args.format not in _TABLE_FORMATS:
        raise UsageError("--output - is for csv and jsonl; expected a file or folder")
    if not args.pad >= 0:
        raise UsageError(f"--pad {args.pad} given; expected 0 or more seconds")


def _spans(index: Index, args: argparse.Namespace) -> list[Span]:
    if args.what != "hits":
        return spans_of(index, args.what, args.where, args.include_deleted)
    options = cli.search_options(args)
    finder = Finder(index, args.encoder, args.thresholds)
    if finder.is_builtin:
        print(f"note: {cli.BUILTIN_WARNING}", file=sys.stderr)
    return spans_of_hits(index, finder.find(args.text, options).hits, args.text)


def _write_table(text: str, n: int, output: str) -> int:
    if output == "-":
        sys.stdout.write(text)
    else:
        write_whole(Path(output), text.encode())
        print(f"{output}: {n:,} rows")
    return 0


def _write_timed(spans: Sequence[Span], args: argparse.Namespace) -> int:
    """One file, or one for each video."""
    output, suffix = Path(args.output), _suffix(args.format)
    videos = by_video(spans)
    if output.name.endswith(f".{args.format}") or output.name.endswith(suffix):
        if args.format in _ONE_VIDEO and len(videos) > 1:
            raise UsageError(
                f"--output {output}: {args.format} is about one video and these are {len(videos)}; expected a folder, "
                "or --where to choose one"
            )
        write_whole(output, _formatted(spans, output.stem, args).encode())
        print(f"{output}: {len(spans):,} {args.what} of {len(videos):,} videos")
        return 0
    names = names_of((span.video for span in spans), suffix)
    for video_id, mine in videos.items():
        write_whole(output / names[video_id], _formatted(mine, mine[0].video.path, args).encode())
    print(f"{output}: {len(videos):,} files, {len(spans):,} {args.what}")
    return 0


def _formatted(spans: Sequence[Span], title: str, args: argparse.Namespace) -> str:
    if args.format == "otio":
        return as_otio(spans, title)
    if args.format != "edl":
        return _ONE_VIDEO[args.format](spans)
    rate = args.rate or edl_rate(spans)
    others = {s.video.path: s.video for s in spans if s.video.rate != rate or s.video.is_vfr}
    if others:
        path, video = next(iter(others.items()))
        what = "variable" if video.is_vfr else shown_rate(video.rate)
        print(
            f"note: times of {len(others)} videos are converted to {shown_rate(rate)} frames per second, "
            f"such as those of {path} ({what})",
            file=sys.stderr,
        )
    return as_edl(spans, title, rate)


def _write_sheets(index: Index, spans: Sequence[Span], args: argparse.Namespace) -> int:
    output, videos = Path(args.output), by_video(spans)
    names = names_of((span.video for span in spans), _suffix("sheet"))
    for video_id, jpeg in sheets_of(index, videos, args.pictures):
        write_whole(output if output.suffix == ".jpg" and len(videos) == 1 else output / names[video_id], jpeg)
    print(f"{output}: {len(videos):,} contact sheets")
    return 0


def _clips(spans: Sequence[Span], folder: Path, copies: bool) -> int:
    """Cut, and say what each file holds."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--output {folder} is a file; expected a folder for the clips")
    done: list[CutClip] = []
    for clip in cut_clips(spans, folder, copies):
        done.append(clip)
        print(_said(clip, folder), file=sys.stderr if clip.file is None else sys.stdout)
    columns = ("file", "path", "start_s", "end_s", "file_starts_at_s", "file_ends_at_s", "n_frames", "text", "error")
    with open(folder / "clips.csv", "w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(columns)
        for c in done:
            file = "" if c.file is None else c.file.relative_to(folder.absolute())
            row = (file, c.span.video.path, c.span.start_s, c.span.end_s, c.start_s, c.end_s, c.n_frames, c.span.text)
            writer.writerow([cell(str(value) if value is not None else "") for value in (*row, c.error)])
    failed = sum(clip.file is None for clip in done)
    print(f"{folder}: {len(done) - failed:,} clips, {failed:,} could not be cut; clips.csv lists them")
    return 3 if failed else 0


def _said(clip: CutClip, folder: Path) -> str:
    asked = f"{clip.span.video.path} {clip.span.start_s:g}-{clip.span.end_s:g} s"
    if clip.file is None or clip.start_s is None or clip.end_s is None:
        return f"  {asked}: not cut: {clip.error}"
    begins = f"; begins at the key frame at {clip.start_s:.3f} s" if clip.is_copy else ""
    return f"  {clip.file.relative_to(folder.absolute())}: {asked}, {clip.n_frames} frames{begins}"


def _suffix(form: str) -> str:
    return _SUFFIX.get(form, f".{form}")


def _rate(text: str) -> Fraction:
    try:
        return parse_rate(text)
    except (ValueError, ZeroDivisionError) as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("export", __doc__)
    parser.add_argument("--index", required=True, help="folder or s3:// prefix of the index")
    parser.add_argument(
        "--what", required=True, choices=[*TABLES, "hits"], help="which rows; hits are what a search for --text finds"
    )
    parser.add_argument("--text", help="with --what hits: what to look for, as in jobs.search")
    form = parser.add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--format",
        choices=FORMATS,
        help="vtt, srt: subtitles; chapters: for ffmpeg (FFMETADATA); csv, jsonl: tables; edl: CMX 3600; otio: "
        "OpenTimelineIO; sheet: a contact sheet of each video",
    )
    form.add_argument("--clips", action="store_true", help="cut each span out of its video, as a file")
    parser.add_argument("--copy", action="store_true", help="with --clips: copy from a key frame, no re-encoding")
    parser.add_argument("--output", required=True, metavar="PATH", help="file or folder to write; - is stdout")
    parser.add_argument("--pad", type=float, default=0.0, metavar="SECONDS", help="lengthen each span on both sides")
    parser.add_argument(
        "--rate", type=_rate, help="with edl: frames per second, such as 25 or 29.97 (default: what most videos have)"
    )
    parser.add_argument(
        "--pictures", type=int, default=40, metavar="N", help="with sheet: at most N pictures of a video (default: 40)"
    )
    cli.add_search_options(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
