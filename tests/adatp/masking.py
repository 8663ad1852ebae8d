"""A slow reference: transformers' own layers over the whole sequence, dropped tokens hidden behind an additive mask."""

import torch
from torch import Tensor

import adatp

Kept = tuple[tuple[int, ...], ...]  # visual tokens that entered each layer


def masked_greedy(model: adatp.VideoLLM, visual: adatp.Visual, prompt: str, kept: Kept, n_tokens: int) -> list[int]:
    """Greedy tokens when layer l may look at no visual token outside kept[l]; everything is recomputed at each step."""
    tokens: list[int] = []
    for _ in range(n_tokens):
        tokens.append(int(masked_logits(model, visual, prompt, kept, tokens)[-1].argmax()))
    return tokens


@torch.inference_mode()
def masked_logits(model: adatp.VideoLLM, visual: adatp.Visual, prompt: str, kept: Kept, answer: list[int]) -> Tensor:
    """Logits of the prompt's last token and of each token of `answer`, (1 + len(answer), vocabulary)."""
    ids = model.prompt.ids(prompt)
    at = ids.index(model.prompt.video_token_id)
    words, newline = model.decoder.embed_tokens, model.trailing_newline
    flat = visual.tokens.flatten(0, 1)
    parts = [words(torch.tensor(ids[:at])), flat, *([] if newline is None else [newline[None]])]
    hidden = torch.cat([*parts, words(torch.tensor(ids[at + 1 :] + answer))])[None]
    n = hidden.shape[1]
    rotation = model.decoder.rotary_emb(hidden, torch.arange(n)[None])
    for layer, alive in zip(model.decoder.layers, kept, strict=True):
        visible = torch.ones(n, dtype=torch.bool)
        visible[at : at + len(flat)] = False
        visible[at + torch.tensor(alive)] = True
        allowed = torch.ones(n, n, dtype=torch.bool).tril() & visible
        allowed |= torch.eye(n, dtype=torch.bool)  # a hidden token looks at itself; nobody looks at it
        mask = torch.zeros(n, n).masked_fill(~allowed, torch.finfo(torch.float32).min)
        hidden = layer(hidden, attention_mask=mask[None, None], position_embeddings=rotation)
    return model.hf.lm_head(model.decoder.norm(hidden))[0, -1 - len(answer) :]
