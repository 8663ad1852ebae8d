"""The rooms and the doors: packages import one way, and each heavy dependency enters through one file."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = {"adatp": {"adatp"}, "pipeline": {"pipeline", "adatp"}, "jobs": {"jobs", "pipeline", "adatp"}}
DOORS = {
    "ray": {"pipeline/execution/on_ray.py"},
    "decord": {"pipeline/decoding/ffmpeg/by_decord.py"},
    "fsspec": {"pipeline/storage/s3.py"},
    "s3fs": {"pipeline/storage/s3.py"},
}
TRANSFORMERS_DOORS = {"pipeline": {"pipeline/models/encoder.py"}, "jobs": set()}
FORBIDDEN = {"adatp": {"ray", "pyarrow", "fsspec", "s3fs", "av", "decord", "PIL"}, "jobs": {"torch", "ray"}}


def imports_of(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


def files(package: str) -> list[Path]:
    found = sorted((ROOT / package).rglob("*.py"))
    assert found, f"no files in {package}"
    return found


@pytest.mark.parametrize("package", ALLOWED)
def test_packages_import_one_way(package: str) -> None:
    for path in files(package):
        ours = imports_of(path) & {"adatp", "pipeline", "jobs", "tests", "benchmarks"}
        assert ours <= ALLOWED[package], f"{path.relative_to(ROOT)} imports {ours - ALLOWED[package]}"


@pytest.mark.parametrize("dependency", DOORS)
def test_heavy_dependencies_have_one_door(dependency: str) -> None:
    users = {
        str(path.relative_to(ROOT)) for package in ALLOWED for path in files(package) if dependency in imports_of(path)
    }
    assert users == DOORS[dependency]


def test_only_the_decode_child_runs_decoders() -> None:
    inside = {ROOT / "pipeline" / "decoding" / "child.py", *files("pipeline/decoding/ffmpeg")}
    for path in (path for package in ALLOWED for path in files(package) if path not in inside):
        assert "pipeline.decoding.ffmpeg" not in path.read_text(), f"{path.relative_to(ROOT)} reaches for decoders"


@pytest.mark.parametrize("package", TRANSFORMERS_DOORS)
def test_transformers_has_one_door_outside_the_method(package: str) -> None:
    users = {str(path.relative_to(ROOT)) for path in files(package) if "transformers" in imports_of(path)}
    assert users == TRANSFORMERS_DOORS[package]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_do_not_know(package: str) -> None:
    for path in files(package):
        known = imports_of(path) & FORBIDDEN[package]
        assert not known, f"{path.relative_to(ROOT)} knows {known}"


FLOORS = [
    *("errors", "types", "config", "decoding", "storage", "archive", "index", "models", "items", "reading"),
    *("describing", "execution", "ledger", "asking", "planted", "evaluation", "shots", "exporting"),
    *("public_benchmarks", "lmms", "run"),
]
"""The rooms of pipeline/ and the files beside them, each standing on those before it."""


def modules_of(path: Path, anywhere: bool) -> set[str]:
    """What a file imports by name: at its head alone, or `anywhere`, also inside functions."""
    tree = ast.parse(path.read_text())
    nodes = [node for node in (ast.walk(tree) if anywhere else tree.body) if isinstance(node, ast.ImportFrom)]
    whole = {node.module for node in nodes if node.module and node.level == 0}
    return whole | {
        f"{node.module}.{alias.name}" for node in nodes for alias in node.names if node.module == "pipeline"
    }


def test_no_arrow_between_rooms_goes_up() -> None:
    """Also inside functions: a room is read with those below it, and with no other."""
    for path in files("pipeline"):
        room = path.relative_to(ROOT / "pipeline").with_suffix("").parts[0]
        if room == "__init__":
            continue
        for module in modules_of(path, anywhere=True):
            package, *rest = module.split(".")
            if package == "pipeline" and rest:
                assert FLOORS.index(rest[0]) <= FLOORS.index(room), (
                    f"{path.relative_to(ROOT)} imports {module}, above it"
                )


@pytest.mark.parametrize("anywhere", [False, True])
def test_no_import_cycles_between_files(anywhere: bool) -> None:
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): modules_of(path, anywhere)
        for package in ALLOWED
        for path in files(package)
    }
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"import cycle: {' -> '.join([*trail, module])}"
        if module in done or module not in graph:
            return
        for imported in graph[module]:
            visit(imported, (*trail, module))
        done.add(module)

    for module in graph:
        visit(module, ())


def test_a_driver_starts_without_the_seconds_that_torch_takes() -> None:
    code = "import sys, jobs.index, pipeline.execution.on_ray; print({'torch', 'transformers'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
