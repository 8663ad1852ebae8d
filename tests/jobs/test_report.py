"""The page, opened in a real Chromium where there is one: what it shows, that it stays text, that it stays usable."""

import html
import io
import json
import os
import re
import shutil
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image

import jobs.report
from pipeline.index.commits import commit
from pipeline.index.runs import record_run
from pipeline.index.snapshot import Index
from pipeline.index.staging import Rows, encode_item, stage
from pipeline.index.tables import table_schema
from tests.pipeline.archive_rows import DIM, ENCODER, error_rows, item_rows, video_rows

CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="NO CHROMIUM HERE: the page was not opened; apt-get install chromium, or set CHROMIUM"
)
EVIL = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


def jpeg(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (256, 144), (shade % 256, 40, 90)).save(out, "JPEG")
    return out.getvalue()


def described(number: int) -> Rows:
    """Rows of one video, with pictures."""
    rows = item_rows(number, caption=EVIL if number == 0 else f"caption of {number}")
    segments = [{**s, "thumbnail": jpeg(number + i)} for i, s in enumerate(rows["segments"].to_pylist())]
    return {**rows, "segments": pa.Table.from_pylist(segments, schema=rows["segments"].schema)}


def make_index(folder: Path, n: int) -> Index:
    """`n` videos with pictures, the last a failure. A caption, a file name and an error message are hostile."""
    index = Index.create(str(folder / "index"), ENCODER)
    items = [described(number) for number in range(n - 1)]
    stage(index.storage, "all", encode_item({t: pa.concat_tables(item[t] for item in items) for t in items[0]}))
    videos = video_rows(*range(n - 1)).to_pylist() + video_rows(n - 1, status="failed", n_clips=0).to_pylist()
    videos[0]["name"] = f"{EVIL}.mp4"
    videos[-1]["error_class"] = "NoFrames"
    errors = [{**row, "message": f"nothing decodes {EVIL}"} for row in error_rows(n - 1).to_pylist()]
    commit(
        index,
        ["all"],
        pa.Table.from_pylist(videos, schema=table_schema("videos", DIM)),
        pa.Table.from_pylist(errors, schema=table_schema("errors", DIM)),
    )
    now = datetime(2026, 1, 2, tzinfo=UTC)
    run = {"run_id": "run-1", "started_at": now, "finished_at": now, "command": "index", "config": "{}", "listed": n}
    run |= {"ignored": 0, "outcome": "ok", "exit_code": 0, "counts": {}, "stages": [], "versions": []}
    record_run(index, run)
    return index


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    index = make_index(folder, 60)
    assert jobs.report.main(["--index", index.url, "--output", str(folder / "report.html")]) == 0
    return folder / "report.html"


def opened(page: Path, fragment: str = "", *flags: str) -> tuple[str, str]:
    """(the document after its script ran, what the console said)."""
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={page.parent / 'profile'}", "--virtual-time-budget=3000", *flags]
    done = subprocess.run(
        [*command, "--dump-dom", f"file://{page}{fragment}"], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)


def texts(dom: str, tag: str) -> list[str]:
    """Text of every element of a kind that holds nothing but text."""
    return [html.unescape(found) for found in re.findall(rf"<{tag}[^>]*>([^<]*)</{tag}>", dom)]


def test_nothing_hostile_leaves_its_place(page: Path) -> None:
    """The file itself: the only script and style elements are the page's own, the rest is JSON without a bracket."""
    text = page.read_text()
    assert "<img" not in text
    scripts = re.findall(r"<script([^>]*)>(.*?)</script>", text, re.DOTALL)
    assert [attributes for attributes, _ in scripts if "application/json" not in attributes] == [""]
    for attributes, body in scripts:
        if "application/json" in attributes:
            assert not set(body) & set("<>&")
            json.loads(body)
    assert "default-src 'none'" in text
    assert re.findall(r"(?:src|href)=\"?(?:https?:)?//", text) == []


@needs_chromium
def test_the_list_shows_everything_and_runs_nothing(page: Path) -> None:
    dom, console = opened(page)
    assert console == ""
    assert "owned" not in texts(dom, "title")[0]
    assert 'data-ready="yes"' in dom
    assert "60 of 60" in texts(dom, "span")
    assert "Page 1 of 2" in texts(dom, "span")
    assert len(re.findall(r'class="name"', dom)) == 50
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', dom)) == 50, "each row has a picture"
    cells = texts(dom, "td")
    assert f"nothing decodes {EVIL}" in cells, "the failure is not there, or not as text"
    assert "adatp p=1" in cells
    assert len(re.findall(r"<svg", dom)) == 5


@needs_chromium
def test_a_video_opens_with_pictures_captions_and_answers(page: Path) -> None:
    names = [
        video["name"] for video in json.loads(re.findall(r'id="data">(.*?)</script>', page.read_text())[0])["videos"]
    ]
    dom, console = opened(page, f"#video={names.index(f'{EVIL}.mp4')}")
    assert console == ""
    assert "owned" not in texts(dom, "title")[0]
    assert f"{EVIL}.mp4" in texts(dom, "h2")
    assert f"{EVIL} 1 0" in texts(dom, "td")
    (dialog,) = re.findall(r"<dialog.*?</dialog>", dom, re.DOTALL)
    assert len(re.findall(r'<img src="data:image/jpeg;base64,', dialog)) == 4
    assert {"What?", "yes"} <= set(texts(dom, "dd"))


@needs_chromium
def test_search_sort_pages_and_keys_work(page: Path, tmp_path: Path) -> None:
    """A driver script is put into a copy, allowed by the copy's policy, and writes what it saw into the document."""
    driver = """
    const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key }));
    const names = () => [...document.querySelectorAll("button.name")].map((b) => b.textContent);
    const seen = [];
    document.querySelector("#next").click(); seen.push(names().length);
    document.querySelector("#search").value = "caption 007";
    document.querySelector("#search").dispatchEvent(new Event("input")); seen.push(names().join());
    document.querySelector("#search").value = "";
    document.querySelector("#status").value = "failed";
    document.querySelector("#status").dispatchEvent(new Event("change")); seen.push(names().join());
    document.querySelector("#status").value = "";
    document.querySelector("#status").dispatchEvent(new Event("change"));
    const name = document.querySelector("#videos th button");
    name.click(); seen.push(names()[0]);
    press("/"); seen.push(document.activeElement.id);
    document.querySelector("button.name").click();
    window.dispatchEvent(new Event("hashchange"));
    seen.push(document.querySelector("#detail").open);
    press("n"); window.dispatchEvent(new Event("hashchange"));
    seen.push(document.querySelector("#detail-name").textContent);
    press("p"); window.dispatchEvent(new Event("hashchange"));
    seen.push(document.querySelector("#detail-name").textContent);
    document.querySelector("#detail").close();
    document.body.dataset.seen = JSON.stringify(seen);
    """
    text = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text())
    copy = tmp_path / "driven.html"
    copy.write_text(text.replace("</body>", f"<script>{driver}</script></body>"))
    dom, console = opened(copy)
    assert console == ""
    seen = json.loads(html.unescape(re.findall(r'data-seen="([^"]*)"', dom)[0]))
    assert seen == [10, "007.mp4", "059.mp4", "059.mp4", "search", True, "058.mp4", "059.mp4"]


@needs_chromium
def test_a_thousand_videos_are_usable(tmp_path: Path) -> None:
    """The size is checked; the seconds are printed for whoever runs with -s, since speed depends on the machine."""
    index = make_index(tmp_path, 1000)
    page = tmp_path / "report.html"
    assert jobs.report.main(["--index", index.url, "--output", str(page)]) == 0
    assert page.stat().st_size < 40e6
    started = time.monotonic()
    dom, console = opened(page)
    print(f"\n1,000 videos: {page.stat().st_size / 1e6:.1f} MB, open in {time.monotonic() - started:.1f} s")
    assert console == ""
    assert "1000 of 1000" in texts(dom, "span")
    assert len(re.findall(r'class="name"', dom)) == 50


@needs_chromium
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("desktop", ["--window-size=1200,1400"]),
        ("phone-dark", ["--window-size=500,900", "--blink-settings=preferredColorScheme=0"]),
    ],
)
def test_screenshots_are_written_for_review(page: Path, name: str, flags: list[str]) -> None:
    target = page.parent / f"{name}.png"
    opened(page, "", *flags, f"--screenshot={target}")
    with Image.open(target) as picture:
        colours = picture.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    assert len(colours) > 50, "the page is blank"
    brightest = max(colours)[1]
    assert (sum(brightest) < 200) == (name == "phone-dark")
    print(f"\n{target}")


def test_the_size_is_bounded_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    index = make_index(tmp_path, 5)
    page = tmp_path / "report.html"
    assert jobs.report.main(["--index", index.url, "--output", str(page), "--videos", "2", "--thumbnails", "1"]) == 0
    text = page.read_text()
    data = json.loads(re.findall(r'id="data">(.*?)</script>', text)[0])
    assert data["n_left_out"] == 3
    assert [video["status"] for video in data["videos"]] == ["failed", "indexed"]
    details = [json.loads(found) for found in re.findall(r'id="video-\d+">(.*?)</script>', text)]
    assert [(len(d["segments"]), d["n_segments"]) for d in details] == [(0, 0), (1, 4)]


def test_an_empty_index_has_a_page(tmp_path: Path) -> None:
    index = Index.create(str(tmp_path / "index"))
    assert jobs.report.main(["--index", index.url, "--output", str(tmp_path / "report.html")]) == 0


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--index", "/nowhere"], "is not an index"),
        (["--output", "/nowhere/report.html"], "no folder"),
        (["--output", "/tmp"], "is a folder"),
        (["--videos", "0"], "--videos 0"),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    index = Index.create(str(tmp_path / "index"))
    given = ["--index", index.url, "--output", str(tmp_path / "report.html"), *flags]
    assert jobs.report.main(given) == 2
    assert message in (error := capsys.readouterr().err)
    assert error.count("\n") == 1
    assert not (tmp_path / "report.html").exists()
