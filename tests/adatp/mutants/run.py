"""Break the library on purpose, one truth at a time, and see its test turn red: `make mutants`.

    python -m tests.adatp.mutants.run [03 17 ...]     all of them, or those whose file names begin so

Each *.patch beside this file begins with a line `Test: <pytest node>` and breaks adatp/ in one way. The named test must
pass on a clean copy and fail on the patched one. Exit code 1 names every mutant that lived or no longer applies.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


def copy_of_the_tree(into: Path) -> Path:
    for name in ("adatp", "tests"):
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__", "jobs", "pipeline"))
    shutil.copy(ROOT / "pyproject.toml", into)
    return into


def run_tests(tree: Path, nodes: list[str]) -> int:
    """pytest's exit code: 0 all passed, 1 a test failed, anything else means it did not run."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *nodes]
    return subprocess.run(command, cwd=tree, capture_output=True).returncode


def test_of(patch: Path) -> str:
    found = re.search(r"^Test: (.+)$", patch.read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit(f"{patch.name}: expected a line 'Test: <pytest node>'")
    return found[1]


def verdict(patch: Path) -> str:
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_of_the_tree(Path(folder))
        applied = subprocess.run(["git", "apply", str(patch)], cwd=tree, capture_output=True, text=True)
        if applied.returncode != 0:
            return f"does not apply: {applied.stderr.strip()}"
        code = run_tests(tree, [test_of(patch)])
    return {0: "lived: its test saw nothing", 1: "killed"}.get(code, f"did not run (exit code {code})")


def main(only: list[str]) -> int:
    patches = [p for p in sorted(HERE.glob("*.patch")) if not only or any(p.name.startswith(name) for name in only)]
    with tempfile.TemporaryDirectory() as folder:
        code = run_tests(copy_of_the_tree(Path(folder)), sorted({test_of(patch) for patch in patches}))
    if code != 0:
        print(f"the tests are red without any mutant (exit code {code})")
        return 1
    verdicts = {}
    for patch in patches:
        verdicts[patch.name] = verdict(patch)
        print(f"{patch.name:60} {verdicts[patch.name]}", flush=True)
    killed = sum(v == "killed" for v in verdicts.values())
    print(f"{killed} of {len(verdicts)} mutants killed")
    return 0 if killed == len(verdicts) > 0 else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
