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
    layout = model.lay_out(prompt, visual.n_steps, visual, visual.times_s)
    hidden = model.decoder.embed_tokens(torch.tensor([*layout.ids, *answer]))
    hidden[layout.visual] = visual.tokens.flatten(0, 1)
    for row in layout.vectors:
        hidden[row] = model.family.vector
    hidden, n, n_prompt = hidden[None], len(hidden), len(layout.ids)
    new = layout.next_position + torch.arange(n - n_prompt).expand(len(layout.positions), -1)
    positions = torch.cat([layout.positions, new], 1)
    rotation = model.decoder.rotary_emb(hidden, positions if len(positions) == 1 else positions[:, None])
    for index, (layer, alive) in enumerate(zip(model.decoder.layers, kept, strict=True)):
        visible = torch.ones(n, dtype=torch.bool)
        visible[layout.visual] = False
        visible[layout.visual[list(alive)]] = True
        allowed = torch.ones(n, n, dtype=torch.bool).tril() & visible
        allowed |= torch.eye(n, dtype=torch.bool)  # a hidden token looks at itself; nobody looks at it
        mask = torch.zeros(n, n).masked_fill(~allowed, torch.finfo(torch.float32).min)
        hidden = layer(hidden, attention_mask=mask[None, None], position_embeddings=rotation)
        if visual.deepstack is not None and index < visual.deepstack.shape[2]:
            hidden[0, layout.visual] += visual.deepstack[:, :, index].flatten(0, 1)
    return model.hf.lm_head(model.decoder.norm(hidden[0, -1 - len(answer) :]))
