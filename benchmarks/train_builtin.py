"""Train the builtin models from nothing but rendered clips: `python -m benchmarks.train_builtin --work FOLDER`.

Stage 1, single frames: the dual encoder, by a sigmoid loss over texts whose truth is known for every frame of the batch,
plus a throw-away linear head that names kind, colour and size in every cell of the pooled grid.
Stage 2, clips: the tower frozen; projector and decoder on eight questions a clip that share one visual prefix, plus a
caption that lists every thing in order; more frames phase by phase. A throw-away loss asks every projected cell to lie
near the embeddings of the words that name it.

Resumable: both stages checkpoint into FOLDER and go on from there. `--export` writes what there is into pipeline/builtin.
Needs torch, transformers, safetensors, pillow and numpy; renders in memory.
"""

import argparse
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from transformers import LlavaOnevisionForConditionalGeneration, SiglipModel

from benchmarks import training_data as data
from benchmarks.builtin_architecture import new_encoder, new_model, save_encoder, save_model, tokenizer, words
from pipeline.planted.vocabulary import COLOURS, GRID, KINDS, SIZES, TEXTURES, TONES

BUILTIN = Path(__file__).parents[1] / "pipeline" / "builtin"


@dataclass(frozen=True)
class Phase:
    """A stretch of stage 2: `steps` batches of `batch` clips with a number of frames out of `frames`."""

    frames: tuple[int, ...]
    batch: int
    steps: int


@dataclass(frozen=True)
class Recipe:
    stage1_steps: int = 1500
    stage1_batch: int = 128
    stage1_rate: float = 1e-3
    phases: tuple[Phase, ...] = (
        Phase((2, 3), 48, 800),
        Phase((6,), 32, 1500),
        Phase((12, 16), 16, 1500),
        Phase((8, 16, 24, 32, 32), 16, 1000),
    )
    stage2_rate: float = 1e-3
    warmup: int = 100
    decay_from: float = 0.75  # share of stage 2 after which the rate falls linearly to 2%
    weight_decay: float = 0.05
    naming_weight: float = 0.3


class _Batches(Dataset):  # type: ignore[type-arg]  # the items are batches already
    def __init__(self, make, first: int, count: int) -> None:  # type: ignore[no-untyped-def]
        self.make, self.first, self.count = make, first, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):  # type: ignore[no-untyped-def]
        torch.set_num_threads(1)
        return self.make(self.first + index)


def _loader(make, first: int, last: int):  # type: ignore[no-untyped-def]
    """Batches first..last-1, made one process ahead."""
    return DataLoader(_Batches(make, first, last - first), batch_size=None, num_workers=1, prefetch_factor=3)


def _optimiser(parameters: list[nn.Parameter], rate: float, weight_decay: float) -> torch.optim.AdamW:
    wide = [p for p in parameters if p.ndim >= 2]
    narrow = [p for p in parameters if p.ndim < 2]
    groups = [{"params": wide, "weight_decay": weight_decay}, {"params": narrow, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95))


def _rate_at(step: int, total: int, recipe: Recipe) -> float:
    """Warm-up, constant, then linear to 2%: a share of the full rate."""
    decay = int(recipe.decay_from * total)
    return min(1.0, (step + 1) / recipe.warmup) * (1.0 if step < decay else max(0.02, (total - step) / (total - decay)))


def _save(path: Path, **state: object) -> None:
    torch.save(state, path.with_suffix(".tmp"))
    path.with_suffix(".tmp").rename(path)


def _log(folder: Path, **row: object) -> None:
    line = json.dumps(row)
    print(line, flush=True)
    with (folder / "curve.jsonl").open("a") as curve:
        curve.write(line + "\n")


# Stage 1 --------------------------------------------------------------------------------------------------------------

DENSE_SIZES = (len(KINDS) + 1, len(COLOURS) + 1, len(SIZES) + 1, len(TONES), len(TEXTURES))


def pooled_cells(patches: torch.Tensor) -> torch.Tensor:
    """(B, 64, d) patch features to (B, 16, d) cells, each the mean of its 2 x 2 patches (the model's own pooling)."""
    b, n, d = patches.shape
    side = int(n**0.5)
    grid = patches.view(b, side, side, d).permute(0, 3, 1, 2)
    return F.interpolate(grid, size=(GRID, GRID), mode="bilinear").permute(0, 2, 3, 1).reshape(b, GRID * GRID, d)


def dense_loss(logits: torch.Tensor, batch: data.FrameBatch) -> tuple[torch.Tensor, dict[str, float]]:
    """Naming every cell: empty and covered cells weigh the same. `logits` (B, 16, sum of DENSE_SIZES)."""
    kind, colour, size, tone, texture = logits.float().split(DENSE_SIZES, dim=-1)
    covered = batch.cells[..., 0] > 0
    loss = torch.zeros(())
    scores = {}
    for name, guess, truth in zip(("kind", "colour", "size"), (kind, colour, size), batch.cells.unbind(-1), strict=True):
        for where in (covered, ~covered):
            loss = loss + F.cross_entropy(guess[where], truth[where])
        scores[name] = (guess.argmax(-1) == truth)[covered].float().mean().item()
    for name, guess, truth in (("tone", tone, batch.rooms[:, 0]), ("texture", texture, batch.rooms[:, 1])):
        whole = guess.mean(1)
        loss = loss + 0.5 * F.cross_entropy(whole, truth)
        scores[name] = (whole.argmax(-1) == truth).float().mean().item()
    return loss, scores


def stage1(folder: Path, recipe: Recipe) -> None:
    torch.manual_seed(1)
    encoder, head = new_encoder(), nn.Linear(128, sum(DENSE_SIZES))
    optimiser = _optimiser([*encoder.parameters(), *head.parameters()], recipe.stage1_rate, recipe.weight_decay)
    path, first = folder / "stage1.pt", 0
    if path.exists():
        state = torch.load(path)
        encoder.load_state_dict(state["encoder"])
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    make = partial(_frame_batch, size=recipe.stage1_batch)
    began = time.perf_counter()
    for step, batch in enumerate(_loader(make, first, recipe.stage1_steps), first):
        for group in optimiser.param_groups:
            group["lr"] = recipe.stage1_rate * _rate_at(step, recipe.stage1_steps, recipe)
        with torch.autocast("cpu", torch.bfloat16):
            seen = encoder.vision_model(batch.pixels, output_hidden_states=True)
            logits = head(pooled_cells(seen.hidden_states[-1]))
            text = encoder.text_model(batch.token_ids).pooler_output
        image, text = F.normalize(seen.pooler_output.float(), dim=-1), F.normalize(text.float(), dim=-1)
        match = text @ image.T * encoder.logit_scale.exp() + encoder.logit_bias  # (M, B)
        contrast = -F.logsigmoid(torch.where(batch.fits, match, -match)).sum() / len(text)
        naming, scores = dense_loss(logits, batch)
        (contrast + naming).backward()
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if step % 25 == 24 or step == recipe.stage1_steps - 1:
            top1 = batch.fits.gather(1, match.argmax(1, keepdim=True)).float().mean().item()
            scores = {name: round(value, 3) for name, value in scores.items()}
            seconds = round(time.perf_counter() - began, 1)
            _log(folder, stage=1, step=step + 1, contrast=round(contrast.item(), 4), top1=round(top1, 3),
                 naming=round(naming.item(), 4), seconds=seconds, **scores)  # fmt: skip
        if step % 100 == 99 or step == recipe.stage1_steps - 1:
            _save(path, encoder=encoder.state_dict(), head=head.state_dict(), optimiser=optimiser.state_dict(), step=step + 1)


def _frame_batch(index: int, size: int) -> data.FrameBatch:
    return data.frame_batch(data.stage_seed("frames", index), size, tokenizer(chat=False))


# Stage 2 --------------------------------------------------------------------------------------------------------------


def _clip_batch(index: int, phases: tuple[Phase, ...]) -> data.ClipBatch:
    seed = data.stage_seed("clips", index)
    for phase in phases:
        if index < phase.steps:
            n_frames = phase.frames[seed % len(phase.frames)]
            return data.clip_batch(seed, phase.batch, n_frames, tokenizer(chat=True))
        index -= phase.steps
    raise ValueError("beyond the last phase")


class _Naming(nn.Module):
    """How near each projected cell lies to the words for its kind and colour, "nothing" for an empty one."""

    def __init__(self) -> None:
        super().__init__()
        index = {word: i for i, word in enumerate(words())}
        self.kinds = torch.tensor([index[w] for w in ("nothing", *KINDS)])
        self.colours = torch.tensor([index[w] for w in ("nothing", *COLOURS)])

    def forward(self, cells: torch.Tensor, truth: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """`cells` (S, 16, d), `truth` (S, 16, 3), `embedding` (vocabulary, d)."""
        unit = F.rms_norm(cells.float(), (cells.shape[-1],))
        covered = truth[..., 0] > 0
        loss = torch.zeros(())
        for axis, names in enumerate((self.kinds, self.colours)):
            logits = unit @ embedding[names].float().T
            for where in (covered, ~covered):
                loss = loss + 0.5 * F.cross_entropy(logits[where], truth[..., axis][where])
        return loss


def block_mask(segment: torch.Tensor, prefix: int) -> torch.Tensor:
    """(B, 1, N, N) bool: a question sees the prefix and its own past; the prefix sees its own past."""
    whole = F.pad(segment, (prefix, 0), value=0)
    n = whole.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    mine = (whole[:, None, :] == 0) | (whole[:, None, :] == whole[:, :, None])
    return (mine & causal)[:, None]


def clip_loss(
    model: LlavaOnevisionForConditionalGeneration, naming: _Naming, batch: data.ClipBatch, naming_weight: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, whether each target was hit, kind of each target)."""
    inner = model.model
    embed = inner.language_model.embed_tokens
    with torch.no_grad():
        patches = inner.vision_tower(batch.pixels, output_hidden_states=True).hidden_states[-1]
    states = inner.apply_pooling(inner.multi_modal_projector(patches))  # (S, 16, d)
    visual = states[batch.frame_state].flatten(1, 2)  # (B, T * 16, d)
    b = visual.shape[0]
    opening = embed(torch.tensor([words().index("<|im_start|>"), words().index("user")])).expand(b, -1, -1)
    newline = inner.image_newline.expand(b, 1, -1)
    embeds = torch.cat([opening, visual, newline, embed(batch.token_ids)], 1)
    prefix = embeds.shape[1] - batch.token_ids.shape[1]
    positions = torch.cat([torch.arange(prefix).expand(b, -1), batch.position + prefix], 1)
    hidden = inner.language_model(
        inputs_embeds=embeds, attention_mask=block_mask(batch.segment, prefix), position_ids=positions, use_cache=False
    ).last_hidden_state[:, prefix:]
    where = batch.target >= 0
    logits = model.lm_head(hidden[where]).float()
    target, kind = batch.target[where], batch.kind[where]
    # A caption has many tokens and a question one or two: a caption token counts a fifth.
    weight = torch.where(kind == data.KINDS_OF_TARGET.index("caption"), 0.2, 1.0)
    loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
    loss = loss + naming_weight * naming(states, batch.cells, embed.weight)
    return loss, (logits.argmax(-1) == target).detach(), kind


def stage2(folder: Path, recipe: Recipe) -> None:
    torch.manual_seed(2)
    model, naming = new_model(), _Naming()
    tower = {k.removeprefix("vision_model."): v for k, v in torch.load(folder / "stage1.pt")["encoder"].items()}
    own = model.model.vision_tower.state_dict()
    prefix = "vision_model." if next(iter(own)).startswith("vision_model.") else ""
    model.model.vision_tower.load_state_dict({k: tower[k.removeprefix(prefix)] for k in own})
    model.model.vision_tower.requires_grad_(False)
    optimiser = _optimiser([p for p in model.parameters() if p.requires_grad], recipe.stage2_rate, recipe.weight_decay)
    path, first = folder / "stage2.pt", 0
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    total = sum(phase.steps for phase in recipe.phases)
    began = time.perf_counter()
    hits = {kind: [0, 0] for kind in data.KINDS_OF_TARGET}
    for step, batch in enumerate(_loader(partial(_clip_batch, phases=recipe.phases), first, total), first):
        for group in optimiser.param_groups:
            group["lr"] = recipe.stage2_rate * _rate_at(step, total, recipe)
        with torch.autocast("cpu", torch.bfloat16):
            loss, hit, kind = clip_loss(model, naming, batch, recipe.naming_weight)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        for i, name in enumerate(data.KINDS_OF_TARGET):
            hits[name][0] += int(hit[kind == i].sum())
            hits[name][1] += int((kind == i).sum())
        if step % 50 == 49 or step == total - 1:
            scores = {name: round(good / asked, 2) for name, (good, asked) in hits.items() if asked}
            hits = {name: [0, 0] for name in data.KINDS_OF_TARGET}
            seconds = round(time.perf_counter() - began, 1)
            frames = batch.frame_state.shape[1]
            _log(folder, stage=2, step=step + 1, frames=frames, loss=round(loss.item(), 3), seconds=seconds, **scores)
        if step % 100 == 99 or step == total - 1:
            _save(path, model=model.state_dict(), optimiser=optimiser.state_dict(), step=step + 1)


def export(folder: Path, destination: Path, thresholds: dict[str, float]) -> None:
    """Write what training has reached in the layout the loaders read."""
    encoder: SiglipModel = new_encoder()
    encoder.load_state_dict(torch.load(folder / "stage1.pt")["encoder"])
    save_encoder(encoder, destination / "encoder", thresholds)
    model = new_model()
    model.load_state_dict(torch.load(folder / "stage2.pt")["model"])
    save_model(model, destination / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and curve.jsonl; resumed from")
    parser.add_argument("--stage", choices=("1", "2", "all"), default="all")
    parser.add_argument("--export", action="store_true", help="train nothing, write pipeline/builtin from the checkpoints")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.export:
        kept = json.loads((BUILTIN / "encoder" / "thresholds.json").read_text())
        export(args.work, BUILTIN, kept)
        return
    recipe = Recipe()
    if args.stage in ("1", "all"):
        stage1(args.work, recipe)
    if args.stage in ("2", "all"):
        stage2(args.work, recipe)


if __name__ == "__main__":
    main()
