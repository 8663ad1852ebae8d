"""`python -m jobs.evaluate` as it is run: what it writes, and how it refuses."""

import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs.evaluate import main


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--benchmark", "plantd"], "--benchmark plantd: unknown; expected planted"),
        (["--benchmark", "planted", "--items", "100"], "--items 100: expected a positive multiple of 12"),
        (["--benchmark", "planted", "--methods", "adpat"], "adpat"),
        (["--benchmark", "planted", "--reference", "none"], "--reference none: expected a method that prunes"),
        (["--benchmark", "planted", "--captions", "1201"], "--captions 1201: expected 0 to 1200"),
        (["--benchmark", "planted", "--margin", "0"], "--margin 0: expected points above 0"),
        (["--benchmark", "planted", "--p", "0"], "--p 0: expected numbers above 0"),
        (["--benchmark", "planted", "--model", "./nowhere"], "--model ./nowhere"),
    ],
)
def test_misuse_is_one_clear_line_and_exit_code_2(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*flags, "--output", str(tmp_path)]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_damaged_weights_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged = tmp_path / "model"
    damaged.mkdir()
    builtin = Path(__file__).parents[2] / "pipeline" / "models" / "builtin" / "model"
    for file in builtin.iterdir():
        content = file.read_bytes()
        (damaged / file.name).write_bytes(content[: len(content) // 2] if file.suffix == ".safetensors" else content)
    assert main(["--benchmark", "planted", "--items", "12", "--model", str(damaged)]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "its header says" in error[0]
    assert "fetch it again" in error[0]


def test_a_smoke_of_120_items(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Ten held-out items a type. builtin tells what there is, and AdaTP spends what its schedule allows."""
    flags = ["--items", "120", "--methods", "adatp", "--captions", "4", "--output", str(tmp_path)]
    assert main(["--benchmark", "planted", *flags]) == 0
    printed = capsys.readouterr().out.strip().splitlines()
    summary = json.loads(printed[-1])
    assert summary["items"] == 120
    assert summary["llm_flops_ratio"]["none@0"] == 1.0
    assert summary["llm_flops_ratio"]["adatp@1"] < 0.42, "the schedule's share in eight layers, and dedup takes more"
    assert {"presence", "colour", "shape"} <= set(summary["gated"])
    assert len(summary["gated"]) >= 6
    assert summary["lost"] == []
    captions = pq.read_table(tmp_path / "captions.parquet").to_pylist()
    assert len(captions) == 2 * 4
    assert all(0 <= row["n_right"] <= row["n_facts"] for row in captions)
    assert summary["captions"]["none@0"] > 0.5
    table = pq.read_table(tmp_path / "answers.parquet")
    assert table.num_rows == 2 * 120
    assert set(table["method"].to_pylist()) == {"none", "adatp"}
    of_none = table.filter(pc.equal(table["method"], "none"))
    for type_ in ("presence", "colour", "shape"):
        right = of_none.filter(pc.equal(of_none["type"], type_))["correct"].to_pylist()
        assert sum(right) >= 9, type_
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["commit"]
    assert len(verdict["gated"]) + len(verdict["excluded"]) == 12
    assert verdict["diagnostics"]["segmentation_f1"] > 0.9
    assert verdict["diagnostics"]["relevance_auc"]["all"] > 0.75
