"""What a run will cost, before it begins: FLOPs from shapes and counts, hours at a stated speed, disk.

The hours are an expectation, not a measurement: they divide FLOPs by a speed that a well-fed GPU reaches.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from adatp import AdaTP, LLMShape, NoPruning, TowerShape, tower_flops
from adatp.flops import llm_prefill_flops, projector_flops
from adatp.schedule import mean_share
from pipeline.public_benchmarks.settings import Setting

TFLOPS = 150.0
"""Effective teraflops per second assumed of one GPU: about a sixth of an H100's bf16 peak, a third of an A100's."""
CPU_TFLOPS = 0.06
TEXT_TOKENS = 130
KNOWN_SHAPES = {
    "0.5b": LLMShape(24, 896, 896, 128, 4864, 151936),
    "7b": LLMShape(28, 3584, 3584, 512, 18944, 152064),
}
SO400M = TowerShape(26, 1152, 4304, 14, 729)
DISK_GB = {
    "videomme": "about 100 GB of zips, the same again unpacked",
    "mlvu": "several hundred GB, mostly long videos",
    "longvideobench": "about 160 GB of tar parts, the same again unpacked",
}


@dataclass(frozen=True)
class Shapes:
    """What decides FLOPs: decoder, tower, and visual tokens per frame."""

    llm: LLMShape
    tower: TowerShape
    tokens_per_frame: int


def shapes_of(config: dict[str, object] | None, model: str, is_grid: bool) -> Shapes:
    """From a checkpoint's config.json; from its name where that is not here, or is another family's."""
    llm = KNOWN_SHAPES["0.5b" if "0.5b" in model.lower() else "7b"]
    tower, grid = SO400M, 27
    try:
        text = (config or {}).get("text_config", config)
        if isinstance(text, dict) and "num_hidden_layers" in text:
            llm = LLMShape.of(SimpleNamespace(**{"vocab_size": 0, "head_dim": None, **text}))
        vision = (config or {}).get("vision_config")
        if isinstance(vision, dict) and "num_hidden_layers" in vision:
            tower = TowerShape.of(SimpleNamespace(**vision), int(vision["num_hidden_layers"]))
            grid = int(vision["image_size"]) // int(vision["patch_size"])
    except (AttributeError, KeyError, TypeError):  # an expectation must not keep a run from starting
        tower, grid = SO400M, 27
    side = grid // 2 if is_grid else (grid + 1) // 2
    return Shapes(llm, tower, side * (side + is_grid))


def expected_cost(
    shapes: Shapes, settings: Sequence[Setting], n_videos: int, n_questions: int, n_frames: int
) -> tuple[float, float]:
    """(vision, language model) in teraflops: frames once per video, each question once per setting.

    A method is taken at its schedule's share of the visual tokens; what its own options spend is not known here.
    """
    n_visual, llm = n_frames * shapes.tokens_per_frame, shapes.llm
    eyes = tower_flops(shapes.tower, n_frames) * 2 + projector_flops(shapes.tower, llm, n_frames)  # and the encoder
    asking = 0.0
    for setting in settings:
        share = 1.0 if isinstance(setting.method, NoPruning) else _share(setting, n_visual, llm.n_layers)
        asking += llm_prefill_flops(llm, [round(n_visual * share) + TEXT_TOKENS] * llm.n_layers, "full")
    return n_videos * eyes / 1e12, n_questions * asking / 1e12


def _share(setting: Setting, n_visual: int, n_layers: int) -> float:
    end = setting.method.end if isinstance(setting.method, AdaTP) else None
    if end is None:
        return mean_share(n_visual, n_layers, setting.p)
    return mean_share(n_visual, n_layers, setting.p) * end / (n_layers / 2)


def hours(tera: float) -> float:
    """GPU hours of so many teraflops."""
    return tera / TFLOPS / 3600


def cost_lines(
    name: str, n_videos: int, n_questions: int, n_settings: int, tera: tuple[float, float], n_frames: int
) -> list[str]:
    """What a person wants to know before starting."""
    cpu_hours = sum(tera) / CPU_TFLOPS / 3600
    return [
        f"{name}: {n_questions} questions on {n_videos} videos, {n_frames} frames each, {n_settings} settings: "
        f"{n_questions * n_settings} answers",
        f"  expected: vision {tera[0]:.3g} TFLOP (once per video), language model {tera[1]:.3g} TFLOP; "
        f"{hours(sum(tera)):.2g} h on one GPU at {TFLOPS:g} TFLOP/s, or "
        f"{cpu_hours:.2g} h on a CPU at {1000 * CPU_TFLOPS:g} GFLOP/s; decoding beside it",
    ]
