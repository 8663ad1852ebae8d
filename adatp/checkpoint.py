"""Loading a Video LLM from a local folder: which family it is, its weights, its prompt, its stop tokens.

safetensors only, no remote code; every tensor of the file has a place in the model and every parameter is in the file,
or loading stops and names the keys. Every family ends in an unmodified transformers class.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer, GenerationConfig

from adatp.families import family_of
from adatp.families.family import ModelFamily
from adatp.families.llava_frames import FrameLayout
from adatp.families.llava_onevision import LlavaOnevision
from adatp.model import VideoLLM
from adatp.prompt import Prompt, load_prompt
from adatp.weights import Checkpoint, CheckpointError


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    frame_layout: FrameLayout | None = None,
    tensors: Mapping[str, Tensor] | None = None,
) -> VideoLLM:
    """Load a Video LLM from the folder `path`; `adatp.families` lists what is supported.

    Args:
        path: a local folder with config.json, *.safetensors and a tokenizer.
        dtype: float32 or bfloat16; float16 overflows in these models' attention scores.
        frame_layout: how LLaVA's frames become tokens. None reads it from config.json: `mm_newline_position` "grid"
            means LLaVA-Video, anything else OneVision. Converted LLaVA-Video checkpoints that lost the field need
            `LLAVA_VIDEO` here.
        tensors: weights by the names of the folder's files, in place of those files, which then need not be there:
            `shapes` of their headers check a checkpoint without reading, or even having, its weights.

    Raises:
        CheckpointError: not such a folder, another architecture, pickled weights, missing or surplus keys, a setting
            that no code here honours, a tokenizer of another vocabulary.
    """
    checkpoint = Checkpoint.of(path, dtype, tensors)
    family = family_of(checkpoint.config).load(checkpoint)
    if frame_layout is not None:
        family = _with_layout(family, frame_layout)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder, local_files_only=True, trust_remote_code=False)
    _check_vocabulary(checkpoint, tokenizer, family)
    family.hf.to(device).eval().requires_grad_(False)
    prompt = load_prompt(
        checkpoint.folder, tokenizer, family.video_token_id, family.system, family.video_text, family.chat_template
    )
    return VideoLLM(family, prompt, _stop_tokens(checkpoint.folder, tokenizer, prompt))


def _check_vocabulary(checkpoint: Checkpoint, tokenizer: Any, family: ModelFamily) -> None:
    """Every token must have a row of its own; what only stands for a video in the template never reaches the model."""
    rows = family.decoder.embed_tokens.num_embeddings
    beyond = {token for token, i in tokenizer.get_added_vocab().items() if i >= rows}
    if len(tokenizer) - len(beyond & {family.video_text}) > rows:
        raise CheckpointError(
            f"expected a tokenizer of at most {rows} tokens in {str(checkpoint.folder)!r}, got {len(tokenizer)}"
        )
    if family.video_token_id >= len(tokenizer):
        raise CheckpointError(
            f"its tokenizer has {len(tokenizer)} tokens, but config.json names token {family.video_token_id} for a "
            "video: the tokenizer is of another model"
        )


def _with_layout(family: ModelFamily, layout: FrameLayout) -> ModelFamily:
    if not isinstance(family, LlavaOnevision):
        raise CheckpointError(f"expected no frame_layout for {family.name}, got {layout}: it is for LLaVA alone")
    return replace(family, layout=layout)


def _stop_tokens(folder: Path, tokenizer: Any, prompt: Prompt) -> frozenset[int]:
    """End-of-sequence ids of the generation configuration and the tokenizer, and the end of turn of a ChatML prompt."""
    stops = {tokenizer.eos_token_id}
    if "<|im_end|>" in prompt.rendered:
        stops.add(tokenizer.get_vocab().get("<|im_end|>"))
    if (folder / "generation_config.json").is_file():
        eos = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id
        stops.update(eos if isinstance(eos, list) else [eos])
    return frozenset(int(i) for i in stops if i is not None)
