"""Video LLMs of published shapes with random weights: speed and FLOPs depend on shapes alone."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

import adatp
from adatp.families.llava_onevision import LlavaOnevision
from adatp.prompt import prompt_for

WORDS = [f"w{i}" for i in range(64)]
CONTROLS = ["<|im_start|>", "<|im_end|>", "<video>"]

SHAPES = {  # hidden, layers, query heads, key heads, feed forward
    "ov-0.5b": (896, 24, 14, 2, 4864),
    "ov-7b": (3584, 28, 28, 4, 18944),
}

SO400M = adatp.TowerShape(n_layers=26, hidden=1152, feed_forward=4304, patch_size=14, n_patches=729)


def published(shape: str) -> adatp.LLMShape:
    """The widths of a published decoder, for FLOPs."""
    hidden, n_layers, heads, key_heads, feed_forward = SHAPES[shape]
    return adatp.LLMShape(n_layers, hidden, hidden, hidden // heads * key_heads, feed_forward, vocabulary=152_000)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token, so a prompt can be given any length."""
    vocabulary = {word: i for i, word in enumerate(["[UNK]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", eos_token="<|im_end|>", additional_special_tokens=CONTROLS
    )


def random_llm(
    hidden: int,
    n_layers: int,
    heads: int,
    key_heads: int,
    feed_forward: int,
    *,
    vocabulary: int = 152_000,
    tower: SiglipVisionConfig | None = None,
    layout: adatp.FrameLayout = adatp.ONEVISION,
    device: str = "cpu",
    dtype: torch.dtype = torch.bfloat16,
    seed: int = 0,
) -> adatp.VideoLLM:
    """A Video LLM with random weights. The default tower has one thin layer: prefill benchmarks never run it.

    It never stops early: `stop_token_ids` is empty.
    """
    tokenizer = word_tokenizer()
    if tower is None:
        tower = SiglipVisionConfig(
            hidden_size=64,
            intermediate_size=64,
            num_hidden_layers=1,
            num_attention_heads=1,
            image_size=384,
            patch_size=14,
            vision_use_head=False,
        )
    config = LlavaOnevisionConfig(
        vision_config=tower,
        text_config=Qwen2Config(
            hidden_size=hidden,
            intermediate_size=feed_forward,
            num_hidden_layers=n_layers,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            vocab_size=max(vocabulary, len(tokenizer)),
            rope_theta=1_000_000.0,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=None,
        ),
        image_token_index=0,
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            hf = LlavaOnevisionForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    prompt = prompt_for(tokenizer, None, config.video_token_id)
    return adatp.VideoLLM(LlavaOnevision(hf.eval().requires_grad_(False), layout), prompt, frozenset())


def random_visual(model: adatp.VideoLLM, n_frames: int, seed: int, ranked: bool = False) -> adatp.Visual:
    """Random tokens in the layout of the model's frames; `ranked` with what VisionZip ranks by."""
    family = model.family
    assert isinstance(family, LlavaOnevision), "random_llm makes no other"
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(n_frames, model.tokens_per_frame, model.hidden_size, generator=generator)
    rows, columns = family.grid
    ranking = adatp.Ranking(
        torch.rand(n_frames, rows * columns, generator=generator),
        torch.randn(n_frames, rows * columns, 8, generator=generator),
    )
    newlines = family.layout.newline == "grid"
    return adatp.Visual(
        tokens.to(model.device, model.dtype), family.grid, newlines, ranking=ranking if ranked else None
    )


def prompt_of(model: adatp.VideoLLM, n_tokens: int) -> str:
    """Words that make the prompt hold `n_tokens` besides the visual ones; a trailing newline vector is one of them."""
    n_fixed = len(model.prompt.ids("")) - 1 + (model.family.vector is not None)
    return " ".join(f"w{i % 64}" for i in range(n_tokens - n_fixed))
