"""Train the builtin models on rendered clips: `python -m benchmarks.train_builtin --work FOLDER`.

Stage 1, single frames: the dual encoder, by a sigmoid loss over texts whose truth is known for every frame of the
batch, plus a throw-away linear head that names kind, colour and size in every cell of the pooled grid.
Stage 2, clips: the tower frozen; projector and decoder on eight questions a clip that share one visual prefix, and a
caption that lists every thing in order; more frames phase by phase. A throw-away loss asks every projected cell to
lie near the embeddings of the words that name it.

Stage 3: projector and decoder go on, on long clips, with fresh optimisers and more questions a clip; easy types weigh
less.
Stage 4: the mean of the weights of stages 2 and 3 goes on for a little, with visual tokens dropped in three ways, two
of which hide what repeats, as pruning by dedup does; `--no-thinning` drops them anywhere alone, so that no method of
pruning is imitated. `--moving 0.5` films half of all clips with a moving camera. `--seed 1` is another run: other first
weights, other clips. `--scale 0.01` is a smoke: a hundredth of the steps.

Resumable: every stage checkpoints into FOLDER and goes on from there. `--export` writes what there is to
pipeline/models/builtin.
Renders in memory; training needs torch, transformers, safetensors, pillow and numpy.
"""

import argparse
import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F
from transformers import AttentionInterface, LlavaOnevisionForConditionalGeneration, SiglipModel

from adatp.schedule import DEFAULT_START
from benchmarks import training_data as data
from benchmarks.builtin_architecture import new_encoder, new_model, save_encoder, save_model, tokenizer, words
from pipeline.describing.calibration import calibrate
from pipeline.models.encoder import Encoder
from pipeline.planted.items import benchmark_items
from pipeline.planted.vocabulary import COLOURS, GRID, KINDS, SIZES, TEXTURES, TONES

BUILTIN = Path(__file__).parents[1] / "pipeline" / "models" / "builtin"


@dataclass(frozen=True)
class Phase:
    """A stretch of stage 2: `steps` batches of `batch` clips with a number of frames out of `frames`."""

    frames: tuple[int, ...]
    batch: int
    steps: int


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    moving: float = 0.0
    """Share of clips, and of single frames, that a moving camera filmed."""
    thinning: bool = True
    """Whether stage 4 hides what repeats; otherwise tokens go anywhere alone."""
    stage1_steps: int = 750
    stage1_batch: int = 128
    stage1_rate: float = 1e-3
    phases: tuple[Phase, ...] = (
        Phase((2, 3), 48, 200),
        Phase((6, 8, 10), 32, 400),
        Phase((16, 24, 32), 16, 140),
    )
    stage2_questions: int = 8
    more_phases: tuple[Phase, ...] = (Phase((6, 8, 10), 32, 200), Phase((12, 16, 24, 32), 16, 600))
    more_questions: int = 12
    last_phases: tuple[Phase, ...] = (Phase((12, 16, 24, 32), 16, 900),)
    last_rates: float = 0.5  # share of the full rates
    dropped: float = 0.8  # at most, of the visual tokens of a clip, where they go at random
    stage2_rate: float = 1e-3
    muon_rate: float = 2e-3
    warmup: int = 40
    decay_from: float = 0.82  # share of a stage after which the rate falls linearly to 2%
    weight_decay: float = 0.05
    naming_weight: float = 0.3

    def scaled(self, share: float) -> "Recipe":
        """The same with that share of the steps, at least two of everything."""

        def fewer(phases: tuple[Phase, ...]) -> tuple[Phase, ...]:
            return tuple(replace(phase, steps=max(2, round(share * phase.steps))) for phase in phases)

        return replace(
            self,
            stage1_steps=max(2, round(share * self.stage1_steps)),
            phases=fewer(self.phases),
            more_phases=fewer(self.more_phases),
            last_phases=fewer(self.last_phases),
        )


@dataclass(frozen=True)
class Ranks:
    """Data-parallel training: `count` processes of one thread each, every one with its share of each batch."""

    rank: int
    count: int

    def average_gradients(self, parameters: list[nn.Parameter]) -> None:
        if self.count == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        torch.distributed.all_reduce(flat)
        for grad, mean in zip(grads, (flat / self.count).split([g.numel() for g in grads]), strict=True):
            grad.copy_(mean.view_as(grad))


def _adamw(parameters: list[nn.Parameter], rate: float, weight_decay: float) -> torch.optim.AdamW:
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
    for name, guess, truth in zip(
        ("kind", "colour", "size"), (kind, colour, size), batch.cells.unbind(-1), strict=True
    ):
        for where in (covered, ~covered):
            loss = loss + F.cross_entropy(guess[where], truth[where])
        scores[name] = (guess.argmax(-1) == truth)[covered].float().mean().item()
    for name, guess, truth in (("tone", tone, batch.rooms[:, 0]), ("texture", texture, batch.rooms[:, 1])):
        whole = guess.mean(1)
        loss = loss + 0.5 * F.cross_entropy(whole, truth)
        scores[name] = (whole.argmax(-1) == truth).float().mean().item()
    return loss, scores


def stage1(folder: Path, recipe: Recipe, ranks: Ranks) -> None:
    torch.manual_seed(1 + 10 * recipe.seed)
    encoder, head = new_encoder(), nn.Linear(128, sum(DENSE_SIZES))
    encoder.set_attn_implementation("eager")  # on a CPU twice as fast as sdpa at 64 patches
    parameters = [*encoder.parameters(), *head.parameters()]
    optimiser = _adamw(parameters, recipe.stage1_rate, recipe.weight_decay)
    words_of = tokenizer(chat=False)
    path, first = folder / "stage1.pt", 0
    if path.exists():
        state = torch.load(path)
        encoder.load_state_dict(state["encoder"])
        head.load_state_dict(state["head"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    began = time.perf_counter()
    for step in range(first, recipe.stage1_steps):
        seed = data.stage_seed("frames", step * ranks.count + ranks.rank, recipe.seed)
        batch = data.frame_batch(seed, recipe.stage1_batch // ranks.count, words_of, recipe.moving)
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
        ranks.average_gradients(parameters)
        nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        if ranks.rank == 0 and (step % 25 == 24 or step == recipe.stage1_steps - 1):
            top1 = batch.fits.gather(1, match.argmax(1, keepdim=True)).float().mean().item()
            scores = {name: round(value, 3) for name, value in scores.items()}
            seconds = round(time.perf_counter() - began, 1)
            _log(folder, stage=1, step=step + 1, contrast=round(contrast.item(), 4), top1=round(top1, 3),
                 naming=round(naming.item(), 4), seconds=seconds, **scores)  # fmt: skip
        if ranks.rank == 0 and (step % 100 == 99 or step == recipe.stage1_steps - 1):
            _save(
                path,
                encoder=encoder.state_dict(),
                head=head.state_dict(),
                optimiser=optimiser.state_dict(),
                step=step + 1,
            )


# Stage 2 --------------------------------------------------------------------------------------------------------------


def _phase_at(step: int, phases: tuple[Phase, ...]) -> Phase:
    for phase in phases:
        if step < phase.steps:
            return phase
        step -= phase.steps
    raise ValueError("beyond the last phase")


PRUNED_FROM = DEFAULT_START
"""The decoder layer from which pruned tokens are missing, as under FastV and AdaTP. What is left has seen them."""

# A caption has many tokens, a question one or two. What few clips can be asked, or takes long to learn, weighs more.
WEIGHTS = {
    "presence": 0.5, "colour": 0.5, "shape": 0.5, "order": 0.5, "exists": 2.0, "count": 2.0, "quarter": 2.0,
    "room": 3.0, "after": 3.0, "small": 2.0, "direction": 3.0, "change": 3.0, "flash": 3.0, "caption": 0.25,
}  # fmt: skip


class _Naming(nn.Module):
    """What each projected cell tells: its kind and colour ("nothing" for an empty one), its room, where it is.

    The first three by how near it lies to their words, so that a question can find it; row and column by a throw-away
    linear head, so that a movement can be read off two cells.
    """

    def __init__(self) -> None:
        super().__init__()
        index = {word: i for i, word in enumerate(words())}
        self.kinds = torch.tensor([index[w] for w in ("nothing", *KINDS)])
        self.colours = torch.tensor([index[w] for w in ("nothing", *COLOURS)])
        self.rooms = tuple(torch.tensor([index[w] for w in names]) for names in (TONES, TEXTURES))
        self.place = nn.Linear(192, 2 * GRID)

    def forward(
        self, cells: torch.Tensor, truth: torch.Tensor, rooms: torch.Tensor, embedding: torch.Tensor
    ) -> torch.Tensor:
        """`cells` (S, 16, d), `truth` (S, 16, 3), `rooms` (S, 2), `embedding` (vocabulary, d)."""
        unit = F.rms_norm(cells.float(), (cells.shape[-1],))
        covered = truth[..., 0] > 0
        loss = torch.zeros(())
        for axis, names in enumerate((self.kinds, self.colours)):
            logits = unit @ embedding[names].float().T
            for where in (covered, ~covered):
                loss = loss + 0.5 * F.cross_entropy(logits[where], truth[..., axis][where])
        for names, room in zip(self.rooms, rooms.unbind(-1), strict=True):
            logits = unit @ embedding[names].float().T  # a thing tells its room too: "in the navy room, ..."
            loss = loss + 0.5 * F.cross_entropy(logits.flatten(0, 1), room.repeat_interleave(cells.shape[1]))
        where_it_is = torch.arange(GRID * GRID).expand(len(cells), -1)
        row, column = self.place(unit).split(GRID, -1)
        loss = loss + 0.5 * F.cross_entropy(row.flatten(0, 1), (where_it_is // GRID).flatten())
        return loss + 0.5 * F.cross_entropy(column.flatten(0, 1), (where_it_is % GRID).flatten())


def block_mask(segment: torch.Tensor, prefix: int) -> torch.Tensor:
    """(B, 1, N, N) bfloat16, 0 where a token may look and hugely negative elsewhere.

    A question sees the prefix and its own past; the prefix sees its own past.
    """
    whole = F.pad(segment, (prefix, 0), value=0)
    n = whole.shape[1]
    causal = torch.ones(n, n, dtype=torch.bool).tril()
    mine = (whole[:, None, :] == 0) | (whole[:, None, :] == whole[:, :, None])
    return torch.zeros(mine.shape, dtype=torch.bfloat16).masked_fill_(~(mine & causal), -1e9)[:, None]


def dropped_tokens(batch: data.ClipBatch, most: float, thinning: bool = True) -> torch.Tensor:
    """(B, T * 16), True where nobody may look. Of four clips in turn:

    one stays whole; one loses a share of its tokens up to `most`, anywhere; one loses whole frames, one cells, that
    show what the frame before them shows: of every such run at least one stays, and often no more. Without `thinning`
    the last two are as the first two.
    """
    cells = batch.cells[batch.frame_state]  # (B, T, 16, 3)
    rooms = batch.rooms[batch.frame_state]  # (B, T, 2)
    is_new = torch.ones(cells.shape[:3], dtype=torch.bool)  # (B, T, 16): not what was there a frame ago
    is_new[:, 1:] = (cells[:, 1:] != cells[:, :-1]).any(-1) | (rooms[:, 1:] != rooms[:, :-1]).any(-1, keepdim=True)
    anywhere = torch.rand(is_new.shape) < most * torch.rand(len(cells), 1, 1)
    ways = [torch.zeros_like(is_new), anywhere] * 2
    if thinning:
        ways[2:] = _thinned(is_new.any(-1, keepdim=True)).expand_as(is_new), _thinned(is_new)
    return torch.stack([ways[i % 4][i] for i in range(len(cells))]).flatten(1)


def _thinned(is_new: torch.Tensor) -> torch.Tensor:
    """(B, T, n), True for what goes of runs that begin where `is_new`: one of each stays, which one is chance."""
    run = is_new.long().cumsum(1)
    chance = torch.rand(is_new.shape)
    shape = (is_new.shape[0], int(run.max()) + 1, is_new.shape[2])
    highest = torch.zeros(shape).scatter_reduce(1, run, chance, "amax")
    share = (1.5 * torch.rand(len(is_new), 1, 1)).clamp(max=1.0)
    return (chance < highest.gather(1, run)) & (torch.rand(is_new.shape) < share)


class _PerClipAttention(torch.autograd.Function):
    """softmax(q k^T + mask) v, one clip after the other so that each stays in the cache: on a CPU 2.4 times sdpa."""

    @staticmethod
    def forward(ctx, query, key, value, mask, scale):  # type: ignore[no-untyped-def]  # untyped upstream
        """query, key, value (B, H, N, D), mask (B, 1, N, N) -> (B, H, N, D)."""
        out = torch.empty_like(query)
        b, h, n, _ = query.shape
        weights = query.new_empty(b, h, n, n)
        for i in range(b):
            scores = torch.baddbmm(mask[i].expand(h, n, n), query[i], key[i].transpose(1, 2), alpha=scale)
            weights[i] = scores.softmax(-1)
            torch.bmm(weights[i], value[i], out=out[i])
        ctx.save_for_backward(query, key, value, weights)
        ctx.scale = scale
        return out

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # untyped upstream
        query, key, value, weights = ctx.saved_tensors
        grad = grad.contiguous()
        to_query, to_key, to_value = torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)
        for i in range(len(query)):
            torch.bmm(weights[i].transpose(1, 2), grad[i], out=to_value[i])
            of_weights = torch.bmm(grad[i], value[i].transpose(1, 2))
            of_scores = weights[i] * (of_weights - (of_weights * weights[i]).sum(-1, keepdim=True)) * ctx.scale
            torch.bmm(of_scores, key[i], out=to_query[i])
            torch.bmm(of_scores.transpose(1, 2), query[i], out=to_key[i])
        return to_query, to_key, to_value, None, None


def _per_clip_attention(module, query, key, value, attention_mask, scaling, **_):  # type: ignore[no-untyped-def]  # untyped upstream
    """In the form transformers' AttentionInterface asks for; key and value heads are shared by groups of queries.

    Of two masks (B, 2, N, N) the first holds in the layers that see every visual token, the second in the others.
    """
    which = min(int(module.layer_idx >= PRUNED_FROM), attention_mask.shape[1] - 1)
    attention_mask = attention_mask[:, which : which + 1]
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    parts = (x.to(torch.bfloat16).contiguous() for x in (query, key, value))
    return _PerClipAttention.apply(*parts, attention_mask, scaling).transpose(1, 2), None  # type: ignore[no-untyped-call]  # untyped upstream


def clip_loss(
    model: LlavaOnevisionForConditionalGeneration,
    naming: _Naming,
    batch: data.ClipBatch,
    naming_weight: float,
    dropped: float,
    thinning: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, whether each target was hit, kind of each target or -1 where it only ends a turn)."""
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
    mask = block_mask(batch.segment, prefix)
    if dropped:
        thin = mask.clone()
        thin[:, 0, :, 2 : prefix - 1].masked_fill_(dropped_tokens(batch, dropped, thinning)[:, None], -1e9)
        mask = torch.cat([mask, thin], 1)
    hidden = inner.language_model(
        inputs_embeds=embeds, attention_mask=mask, position_ids=positions, use_cache=False
    ).last_hidden_state[:, prefix:]
    where = batch.target >= 0
    logits = model.lm_head(hidden[where]).float()
    target, kind = batch.target[where], batch.kind[where]
    weight = torch.tensor([WEIGHTS[name] for name in data.KINDS_OF_TARGET])[kind]
    loss = (F.cross_entropy(logits, target, reduction="none") * weight).sum() / weight.sum()
    loss = loss + naming_weight * naming(states, batch.cells, batch.rooms, embed.weight)
    ends = target == words().index("<|im_end|>")
    return loss, (logits.argmax(-1) == target).detach(), torch.where(ends, -1, kind)


def stage2(folder: Path, recipe: Recipe, ranks: Ranks) -> None:
    torch.manual_seed(2 + 10 * recipe.seed)
    model = new_model()
    tower = {k.removeprefix("vision_model."): v for k, v in torch.load(folder / "stage1.pt")["encoder"].items()}
    own = model.model.vision_tower.state_dict()
    prefix = "vision_model." if next(iter(own)).startswith("vision_model.") else ""
    model.model.vision_tower.load_state_dict({k: tower[k.removeprefix(prefix)] for k in own})
    _train_on_clips(folder / "stage2.pt", model, recipe, recipe.phases, recipe.stage2_questions, ranks)


def stage3(folder: Path, recipe: Recipe, ranks: Ranks) -> None:
    torch.manual_seed(3 + 10 * recipe.seed)
    model = new_model()
    model.load_state_dict(torch.load(folder / "stage2.pt")["model"])
    _train_on_clips(folder / "stage3.pt", model, recipe, recipe.more_phases, recipe.more_questions, ranks)


def stage4(folder: Path, recipe: Recipe, ranks: Ranks) -> None:
    """From the mean of the weights of stages 2 and 3, with visual tokens dropped (`dropped_tokens`).

    Stage 3 alone answers more and forgets how to caption a clip of which tokens are missing; see docs/log.md.
    """
    torch.manual_seed(4 + 10 * recipe.seed)
    model = new_model()
    before, after = (torch.load(folder / f"stage{n}.pt")["model"] for n in (2, 3))
    model.load_state_dict({name: (before[name] + after[name]) / 2 for name in after})
    gentle = replace(
        recipe, stage2_rate=recipe.stage2_rate * recipe.last_rates, muon_rate=recipe.muon_rate * recipe.last_rates
    )
    path = folder / "stage4.pt"
    _train_on_clips(path, model, gentle, recipe.last_phases, recipe.more_questions, ranks, recipe.dropped)


def _train_on_clips(
    path: Path,
    model: LlavaOnevisionForConditionalGeneration,
    recipe: Recipe,
    phases: tuple[Phase, ...],
    n_questions: int,
    ranks: Ranks,
    dropped: float = 0.0,
) -> None:
    """Train projector and decoder of `model` through `phases`, the tower frozen, checkpointing into `path`."""
    naming = _Naming()
    AttentionInterface.register("per_clip", _per_clip_attention)
    model.model.language_model.set_attn_implementation("per_clip")
    model.model.vision_tower.set_attn_implementation("eager")
    model.model.vision_tower.requires_grad_(False)
    parameters = [p for p in (*model.parameters(), *naming.parameters()) if p.requires_grad]
    # Muon for the matrices inside the decoder and the projector, AdamW for embeddings, norms and biases.
    inside = [p for name, p in model.named_parameters() if p.requires_grad and p.ndim == 2 and "embed" not in name]
    chosen = {id(p) for p in inside}
    optimisers = (
        torch.optim.Muon(inside, lr=recipe.muon_rate, weight_decay=recipe.weight_decay, adjust_lr_fn="match_rms_adamw"),
        _adamw([p for p in parameters if id(p) not in chosen], recipe.stage2_rate, recipe.weight_decay),
    )
    full_rates = [[group["lr"] for group in optimiser.param_groups] for optimiser in optimisers]
    first = 0
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        naming.load_state_dict(state["naming"])
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        first = state["step"]
    total = sum(phase.steps for phase in phases)
    began = time.perf_counter()
    hits = {kind: [0, 0] for kind in data.KINDS_OF_TARGET}
    words_of = tokenizer(chat=True)
    for step in range(first, total):
        phase = _phase_at(step, phases)
        n_frames = phase.frames[step % len(phase.frames)]
        of_stage = "clips" if path.stem == "stage2" else path.stem
        seed = data.stage_seed(of_stage, step * ranks.count + ranks.rank, recipe.seed)
        batch = data.clip_batch(seed, phase.batch // ranks.count, n_frames, words_of, n_questions, moving=recipe.moving)
        for optimiser, full in zip(optimisers, full_rates, strict=True):
            for group, rate in zip(optimiser.param_groups, full, strict=True):
                group["lr"] = rate * _rate_at(step, total, recipe)
        with torch.autocast("cpu", torch.bfloat16):
            loss, hit, kind = clip_loss(model, naming, batch, recipe.naming_weight, dropped, recipe.thinning)
        loss.backward()
        ranks.average_gradients(parameters)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()  # type: ignore[no-untyped-call]  # untyped upstream
            optimiser.zero_grad(set_to_none=True)
        for i, name in enumerate(data.KINDS_OF_TARGET):
            hits[name][0] += int(hit[kind == i].sum())
            hits[name][1] += int((kind == i).sum())
        if ranks.rank == 0 and (step % 50 == 49 or step == total - 1):
            scores = {name: round(good / asked, 2) for name, (good, asked) in hits.items() if asked}
            hits = {name: [0, 0] for name in data.KINDS_OF_TARGET}
            seconds = round(time.perf_counter() - began, 1)
            frames = batch.frame_state.shape[1]
            _log(
                path.parent, stage=int(path.stem[-1]), step=step + 1, frames=frames, loss=round(loss.item(), 3),
                seconds=seconds, **scores,
            )  # fmt: skip
        if ranks.rank == 0 and (step % 100 == 99 or step == total - 1):
            states = [optimiser.state_dict() for optimiser in optimisers]
            _save(path, model=model.state_dict(), naming=naming.state_dict(), optimisers=states, step=step + 1)


def thresholds_on_dev(folder: Path, n_items: int = 120) -> dict[str, float]:
    """tau_s and tau_t of the encoder in `folder`, without labels, on the dev split's clips and questions."""
    encoder = Encoder(folder)
    items = benchmark_items("dev", n_items)
    videos = [encoder.images(data.normalised(item.frames())).numpy() for item in items]
    found = calibrate(videos, encoder.texts([item.question.text for item in items]).numpy())
    return {"tau_s": round(found.tau_s, 4), "tau_t": round(found.tau_t, 4)}


def export(folder: Path, destination: Path) -> None:
    """Write what training has reached in the layout the loaders read."""
    if (folder / "stage1.pt").exists():
        encoder: SiglipModel = new_encoder()
        encoder.load_state_dict(torch.load(folder / "stage1.pt")["encoder"])
        save_encoder(encoder, destination / "encoder", {})
        save_encoder(encoder, destination / "encoder", thresholds_on_dev(destination / "encoder"))
    latest = [path for stage in ("stage4.pt", "stage3.pt", "stage2.pt") if (path := folder / stage).exists()]
    if latest:
        model = new_model()
        model.load_state_dict(torch.load(latest[0])["model"])
        save_model(model, destination / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder of checkpoints and curve.jsonl; resumed from")
    parser.add_argument("--stage", choices=("1", "2", "3", "4", "all"), default="all")
    parser.add_argument("--ranks", type=int, default=2, help="processes of one thread each that share every batch")
    parser.add_argument("--seed", type=int, default=0, help="which run: other first weights, other clips")
    parser.add_argument("--moving", type=float, default=0.0, help="share of clips that a moving camera films")
    parser.add_argument("--no-thinning", action="store_true", help="stage 4 drops tokens anywhere alone")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the steps; 0.01 is a smoke")
    parser.add_argument(
        "--export", action="store_true", help="train nothing, write pipeline/models/builtin from the checkpoints"
    )
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if args.export:
        export(args.work, BUILTIN)
        return
    recipe = Recipe(args.seed, args.moving, not args.no_thinning)
    spawn(_train, (args.work, args.stage, args.ranks, recipe.scaled(args.scale)), nprocs=args.ranks)


def _train(rank: int, folder: Path, stage: str, count: int, recipe: Recipe) -> None:
    torch.set_num_threads(1)
    if count > 1:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        meeting = (folder / f"ranks-{os.getppid()}").resolve().as_uri()
        torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=count)
    ranks = Ranks(rank, count)
    for number, train in enumerate((stage1, stage2, stage3, stage4), 1):
        if count > 1:
            torch.distributed.barrier()  # each reads what rank 0 wrote of the one before
        if stage in (str(number), "all"):
            train(folder, recipe, ranks)


if __name__ == "__main__":
    main()
