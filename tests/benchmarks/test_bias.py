"""Both meters of the paper's biases on a family, through the family's own preprocessing."""

from pathlib import Path

import adatp
from benchmarks.bias import clips_of, measure, meters_of
from pipeline.models.checkpoints import resolve_model
from tests.published.llava import write_llava


def test_both_meters_are_measured_on_a_published_layout(tmp_path: Path) -> None:
    write_llava(tmp_path, "lmms-lab/LLaVA-Video-7B-Qwen2")
    files, model = resolve_model(str(tmp_path), "model"), adatp.load(tmp_path)
    clips = [(images[:8], text) for images, text in clips_of(None, 12)[:1]]
    scores = measure(model, files, clips)
    assert scores.shape == (1, 3, 8, 182)
    meters = meters_of(scores)
    assert all(0 <= share <= 1 for share in meters["recency"])
    assert all(times >= 1 for times in meters["position_peak"])
