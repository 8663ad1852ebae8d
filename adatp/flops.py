"""An analytic FLOPs counter, driven by recorded token counts. One multiply-add is 2 FLOPs; matrix products only.

Three ratios always stand side by side (pruned over unpruned):
- paper: linear layers of the LLM's prefill, which is what a profiler that knows no fused attention counts (METHOD 1.3);
- with_attention: the same with q k^T and a v, counted as full squares like `torch.utils.flop_counter` does;
- end_to_end: segmentation encoder + vision tower + projector + LLM with attention, over vision tower + projector + LLM
  unpruned. The unpruned run needs no segmentation, so the encoder counts against pruning.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Attention = Literal["none", "causal", "full"]


@dataclass(frozen=True)
class LLMShape:
    """A Qwen2-class decoder: widths that decide its matrix products."""

    n_layers: int
    hidden: int
    query_width: int
    key_width: int
    feed_forward: int
    vocabulary: int

    @classmethod
    def of(cls, config: Any) -> "LLMShape":
        """From a transformers text configuration."""
        head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            head * config.num_attention_heads,
            head * config.num_key_value_heads,
            config.intermediate_size,
            config.vocab_size,
        )


@dataclass(frozen=True)
class TowerShape:
    """A SigLIP-class vision tower; `n_layers` are those that run."""

    n_layers: int
    hidden: int
    feed_forward: int
    patch_size: int
    n_patches: int
    has_head: bool = False
    """Attention-pooling head of the full encoder (Video LLMs drop it)."""
    has_class_token: bool = False
    """One token beside the patches, in every layer."""

    @classmethod
    def of(cls, config: Any, n_layers: int | None = None) -> "TowerShape":
        """From a transformers SigLIP vision configuration: all of it, or its first `n_layers` without the head."""
        return cls(
            config.num_hidden_layers if n_layers is None else n_layers,
            config.hidden_size,
            config.intermediate_size,
            config.patch_size,
            (config.image_size // config.patch_size) ** 2,
            has_head=n_layers is None and config.vision_use_head,
        )


@dataclass(frozen=True)
class FlopsRatios:
    """Pruned over unpruned, in the three accountings of this module."""

    paper: float
    with_attention: float
    end_to_end: float


def llm_layer_flops(shape: LLMShape, n: int, attention: Attention) -> float:
    """One decoder layer over `n` tokens."""
    d, q, kv = shape.hidden, shape.query_width, shape.key_width
    linear = 2 * n * (2 * d * q + 2 * d * kv + 3 * d * shape.feed_forward)
    pairs = {"none": 0, "causal": n * (n + 1) / 2, "full": n * n}[attention]
    return linear + 4 * pairs * q


def llm_prefill_flops(shape: LLMShape, tokens_per_layer: Sequence[int], attention: Attention) -> float:
    """The decoder's prefill when layer l sees tokens_per_layer[l] tokens (visual and text), without the lm_head."""
    if len(tokens_per_layer) != shape.n_layers:
        raise ValueError(f"expected token counts of {shape.n_layers} layers, got {len(tokens_per_layer)}")
    return sum(llm_layer_flops(shape, n, attention) for n in tokens_per_layer)


def lm_head_flops(shape: LLMShape) -> float:
    """Logits of one position."""
    return 2 * shape.hidden * shape.vocabulary


def tower_flops(shape: TowerShape, n_frames: int) -> float:
    """The vision tower over `n_frames`, attention as full squares. Also right for a SigLIP segmentation encoder."""
    n, d, ff = shape.n_patches, shape.hidden, shape.feed_forward
    embed = 2 * n * 3 * shape.patch_size**2 * d
    rows = n + shape.has_class_token
    layer = 2 * rows * (4 * d * d + 2 * d * ff) + 4 * rows * rows * d
    # one probe attends to all patches: keys and values of n, query and output of 1, then an MLP on that 1
    head = 2 * (n * 2 * d * d + 2 * d * d + 2 * d * ff) + 4 * n * d if shape.has_head else 0
    return float(n_frames * (embed + shape.n_layers * layer + head))


def projector_flops(tower: TowerShape, llm: LLMShape, n_frames: int) -> float:
    """The two-layer projector, before pooling."""
    return float(n_frames * 2 * tower.n_patches * (tower.hidden * llm.hidden + llm.hidden**2))


def siglip_vision(tower: TowerShape, llm: LLMShape) -> Callable[[int], float]:
    """The `vision_flops` of LLaVA's tower and projector, for `ratios`."""
    return lambda n_frames: tower_flops(tower, n_frames) + projector_flops(tower, llm, n_frames)


def ratios(
    llm: LLMShape,
    vision_flops: Callable[[int], float],
    visual_tokens_per_layer: Sequence[int],
    other_tokens: int,
    n_visual: int,
    n_frames: int,
    n_frames_encoded: int,
    encoder_flops: float = 0.0,
) -> FlopsRatios:
    """The three ratios of one prefill.

    Args:
        vision_flops: FLOPs of the vision tower and the projector over so many frames; see `siglip_vision`.
        visual_tokens_per_layer: visual tokens that entered each decoder layer.
        other_tokens: T, every other position: header, newline, text.
        n_visual: V0, visual tokens of the unpruned prompt. n_frames: frames they come from.
        n_frames_encoded: frames the vision tower really saw.
        encoder_flops: FLOPs of the segmentation encoder, counted in the pruned sum alone.
    """
    pruned = [v + other_tokens for v in visual_tokens_per_layer]
    full = [n_visual + other_tokens] * llm.n_layers

    def llm_flops(tokens: list[int], attention: Attention) -> float:
        return llm_prefill_flops(llm, tokens, attention)

    return FlopsRatios(
        paper=llm_flops(pruned, "none") / llm_flops(full, "none"),
        with_attention=llm_flops(pruned, "full") / llm_flops(full, "full"),
        end_to_end=(encoder_flops + vision_flops(n_frames_encoded) + llm_flops(pruned, "full"))
        / (vision_flops(n_frames) + llm_flops(full, "full")),
    )
