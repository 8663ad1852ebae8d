"""README and docs/: every command shown is one that its job takes, every link leads somewhere, every recipe runs."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Walk

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"python -m jobs\.(\w+)((?:[^\n#`]|\\\n)*)")
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#([^)\s]+))?\)")
MAX_README_WORDS = 1400


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


def commands(page: str) -> list[tuple[str, list[str]]]:
    """(job, words) of every `python -m jobs.JOB ...` in a block of shell, without what the shell does with it."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    found = COMMAND.findall("\n".join(blocks))
    words = [(job, shlex.split(rest.replace("\\\n", " "))) for job, rest in found]
    shell = {">", ">>", "2>", "|", "2>&1"}
    return [(job, line[: next((i for i, word in enumerate(line) if word in shell), len(line))]) for job, line in words]


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_command_shown_is_taken_by_its_job(page: Path) -> None:
    for job, words in commands(page.read_text()):
        module = importlib.import_module(f"jobs.{job}")
        parser = (getattr(module, "_parser", None) or module.parser)()  # public where other code builds on the command
        try:
            parser.parse_args([word for word in words if word != "..."])
        except SystemExit as refusal:
            raise AssertionError(f"{page_id(page)}: jobs.{job} does not take {words}") from refusal


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, heading in LINK.findall(page.read_text()):
        place = page.parent / target
        assert place.exists(), f"{page_id(page)} links to {target}, which is not there"
        if heading:
            titles = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, f"{page_id(page)} links to {target}#{heading}; there are {sorted(slugs)}"


def test_readme_is_short() -> None:
    n_words = len((ROOT / "README.md").read_text().split())
    assert n_words <= MAX_README_WORDS


@pytest.mark.timeout(900)  # the walk of docs/first_steps.md comes first when this test runs alone
def test_the_recipes_of_readme_run_on_the_demo(first_steps: Walk) -> None:
    page = (ROOT / "README.md").read_text()
    section = page[page.index("## What you can ask") : page.index("## What comes out")]
    recipes = re.findall(r"^(python -m jobs\.\w+ .*)$", section, re.MULTILINE)
    assert len(recipes) == 10
    env = {**os.environ, "INDEX": "demo/seed-7/index", "PYTHONPATH": str(first_steps.folder)}
    for recipe in recipes:
        command = recipe.replace("python", sys.executable, 1)
        done = subprocess.run(["sh", "-ec", command], cwd=first_steps.folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, f"{recipe}\n{done.stdout}{done.stderr}"
        assert done.stdout.strip(), f"{recipe} printed nothing"
