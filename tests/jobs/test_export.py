"""jobs.export as people run it, on an index of the session; WebVTT in a real Chromium."""

import csv
import http.server
import json
import os
import queue
import subprocess
import threading
from pathlib import Path

import opentimelineio as otio
import pytest
from PIL import Image

import jobs.export
from pipeline.index.snapshot import Index
from tests.jobs.conftest import files_of, job
from tests.jobs.test_report import CHROMIUM, needs_chromium


def export(index: Path, *flags: str) -> int:
    return jobs.export.main(["--index", str(index), *flags])


def test_subtitles_stand_as_the_archive_does(indexed: Path, tmp_path: Path) -> None:
    before = files_of(indexed)
    assert export(indexed, "--what", "captions", "--format", "srt", "--output", str(tmp_path / "out")) == 0
    files = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.srt"))
    assert files == ["a.srt", "long.srt", "sub/b with space.srt"]
    assert files_of(indexed) == before


@needs_chromium
def test_webvtt_plays_in_chromium(indexed: Path, archive: Path, tmp_path: Path) -> None:
    """The cue that is on at 1 s is the first caption's text."""
    vtt = tmp_path / "a.vtt"
    flags = ["--where", "name = 'a.mp4'", "--output", str(vtt)]
    assert export(indexed, "--what", "captions", "--format", "vtt", *flags) == 0
    cues = _seen_by_chromium(archive / "a.mp4", vtt, at_s=1)
    captions = Index.open(str(indexed)).read("captions", ["uri", "caption", "end_s"]).to_pylist()
    (mine,) = [row for row in captions if row["uri"].endswith("/a.mp4")]
    assert cues == [[0, mine["end_s"], " ".join(mine["caption"].split())]]


def _seen_by_chromium(video: Path, vtt: Path, at_s: float) -> list[list[object]]:
    """(start, end, text) of the cues on screen at a time; the page says them to a server of ours on loopback."""
    said: queue.Queue[list[list[object]]] = queue.Queue()

    class Listener(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    page = vtt.with_name("page.html")
    page.write_text(f"""<video src="file://{video}" muted><track default kind="subtitles" src="{vtt.name}"></video>
    <script>
    const video = document.querySelector("video");
    video.textTracks[0].mode = "showing";
    video.addEventListener("loadeddata", () => {{ video.currentTime = {at_s}; }});
    video.addEventListener("seeked", () => setTimeout(() => {{
      const cues = [...(video.textTracks[0].activeCues || [])];
      const shown = cues.map((c) => [c.startTime, c.endTime, c.getCueAsHTML().textContent]);
      navigator.sendBeacon("http://127.0.0.1:{server.server_port}/", JSON.stringify(shown));
    }}, 300));
    </script>""")
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command += [f"--user-data-dir={vtt.with_name('profile')}", "--remote-debugging-port=0", f"file://{page}"]
    browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return said.get(timeout=60)
    finally:
        browser.terminate()
        browser.wait()
        server.shutdown()


def test_a_cut_list_of_hits_opens_and_its_clips_can_be_cut(indexed: Path, tmp_path: Path) -> None:
    hits = ["--what", "hits", "--text", "a red square", "--top", "3"]
    assert export(indexed, *hits, "--format", "edl", "--output", str(tmp_path / "hits.edl")) == 0
    assert export(indexed, *hits, "--format", "otio", "--output", str(tmp_path / "hits.otio")) == 0
    edl = otio.adapters.read_from_file(str(tmp_path / "hits.edl"), rate=24)
    timeline = otio.adapters.read_from_file(str(tmp_path / "hits.otio"))
    assert len(edl.tracks[0]) == len(timeline.tracks[0]) == 3
    for flags, folder in (([], "encoded"), (["--copy"], "copied")):
        assert export(indexed, *hits, "--clips", *flags, "--output", str(tmp_path / folder)) == 0
        rows = list(csv.DictReader((tmp_path / folder / "clips.csv").read_text().splitlines()))
        assert len(rows) == 3
        for row in rows:
            assert (tmp_path / folder / row["file"]).stat().st_size > 0
            assert float(row["file_starts_at_s"]) <= float(row["start_s"])
            assert flags or float(row["file_starts_at_s"]) == float(row["start_s"])
    assert not list(tmp_path.rglob("*.part*"))


def test_what_cannot_be_cut_says_so_and_the_next_is_cut(indexed: Path, archive: Path, tmp_path: Path) -> None:
    target = archive / "a.mp4"
    kept, times = target.read_bytes(), target.stat()
    try:
        target.write_bytes(kept + b"changed")
        flags = ["--what", "captions", "--where", "end_s < 30", "--clips", "--output", str(tmp_path / "clips")]
        ended = job("export", "--index", str(indexed), *flags)
    finally:
        target.write_bytes(kept)
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))  # later tests index this archive again
    rows = list(csv.DictReader((tmp_path / "clips" / "clips.csv").read_text().splitlines()))
    assert ended.code == 3
    assert [row["error"] for row in rows if row["path"] == "a.mp4"] == [
        "it is not the file that was indexed; index it again first"
    ]


def test_a_contact_sheet_for_each_video(indexed: Path, tmp_path: Path) -> None:
    assert export(indexed, "--what", "segments", "--format", "sheet", "--output", str(tmp_path / "sheets")) == 0
    with Image.open(tmp_path / "sheets" / "sub" / "b with space.jpg") as sheet:
        assert sheet.width == 8 + 5 * 264


def test_tables_go_to_stdout(indexed: Path) -> None:
    ended = job("export", "--index", str(indexed), "--what", "segments", "--format", "jsonl", "--output", "-")
    rows = [json.loads(line) for line in ended.out.splitlines()]
    assert {row["path"] for row in rows} == {"a.mp4", "long.mp4", "sub/b with space.mkv"}
    assert all(row["link"].startswith(row["uri"] + "#t=") for row in rows)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--what", "captions", "--format", "srt", "--output", "x.srt"], "srt is about one video and these are 3"),
        (["--what", "hits", "--format", "srt", "--output", "x"], "hits take a text"),
        (["--what", "captions", "--text", "x", "--format", "csv", "--output", "-"], "hits take a text"),
        (["--what", "captions", "--format", "srt", "--output", "-"], "--output -"),
        (["--what", "captions", "--format", "srt", "--rate", "25", "--output", "x"], "--rate"),
        (["--what", "captions", "--format", "edl", "--rate", "12.5", "--output", "x.edl"], "no rate of time code"),
        (["--what", "captions", "--format", "srt", "--copy", "--output", "x"], "--copy"),
        (["--what", "captions", "--format", "srt", "--where", "nosuch = 1", "--output", "x"], "no column 'nosuch'"),
        (["--what", "captions", "--output", "x"], "one of the arguments --format --clips is required"),
    ],
)
def test_bad_input_is_one_line(indexed: Path, flags: list[str], message: str, tmp_path: Path) -> None:
    if flags[-1].startswith("x"):
        flags = [*flags[:-1], str(tmp_path / flags[-1])]
    ended = job("export", "--index", str(indexed), *flags)
    assert ended.code == 2
    assert message in ended.err
    assert ended.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
