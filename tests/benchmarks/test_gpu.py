"""The script for a bare GPU machine, at small size on the CPU."""

import pytest

from benchmarks import gpu


def test_the_checks_pass_on_a_right_device_and_see_a_wrong_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu.check("cpu")["is_well"]
    real = gpu.random_visual
    calls = iter(range(1000))

    def drifting(*args: object, **options: object) -> object:
        visual = real(*args, **options)  # type: ignore[arg-type]  # whatever it was called with
        visual.tokens.add_(next(calls))  # as a device would that computes something else
        return visual

    monkeypatch.setattr(gpu, "random_visual", drifting)
    assert not gpu.check("cpu")["is_well"]


@pytest.mark.nightly
def test_the_whole_script_ends_in_one_result_and_says_what_time_did_not_suffice_for() -> None:
    result = gpu.run("tiny", "cpu", seconds=600, rounds=1, batches=[1])
    assert result["missing"] == []
    assert result["video_hours_per_day"] > 0
    assert {"first_token_speedup", "selection_over_unpruned", "sending_ms", "captions", "commit"} <= result.keys()
    hurried = gpu.run("tiny", "cpu", seconds=0, rounds=1, batches=[1, 2])
    assert hurried["missing"] == ["memory", "sending", "captions", "captions at 1", "captions at 2"]
