"""The formulas once more, slowly: plain Python, one token at a time, sharing nothing with adatp/."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def schedule_count(n_visual: int, p: float, layer: int, start: int, end: int) -> int:
    if layer < start:
        return n_visual
    share = 0.12 if layer >= end else 0.40 - (0.40 - 0.12) * (layer - start) / (end - start)
    return min(n_visual, round(n_visual * p * share))


def algorithm_1(
    scores: Sequence[float], segment: Sequence[int], position: Sequence[int], quota: Sequence[int], local: bool
) -> list[int]:
    """Per segment: the top-k by score (ties: lower index); then walk them and keep the first at each position."""
    kept = []
    for g, k in enumerate(quota):
        members = [i for i in range(len(scores)) if segment[i] == g]
        members.sort(key=lambda i: (-scores[i], i))
        seen: set[int] = set()
        for i in members[:k]:
            if local and position[i] in seen:
                continue
            seen.add(position[i])
            kept.append(i)
    return sorted(kept)


def fastv(scores: Sequence[float], n_keep: int) -> list[int]:
    return sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:n_keep])


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / max(1e-12, math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b)))


def visionzip_frame(
    features: Tensor, received: Tensor, keys: Tensor, n_keep: int, official_sum: bool
) -> tuple[Tensor, list[int]]:
    """One frame: features (c, d), received (c,), keys (c, k)."""
    c = len(features)
    n_dominant = int(n_keep * 54 / 64)
    n_context = n_keep - n_dominant
    ranked = sorted(range(c), key=lambda i: (-float(received[i]), i))
    dominant = sorted(ranked[:n_dominant])
    remaining = [i for i in range(c) if i not in dominant]
    step = max(1, len(remaining) // n_context) if n_context else 1
    targets = remaining[::step][:n_context]
    joined: dict[int, list[int]] = {t: [] for t in targets}
    for i in remaining:
        if i in targets or not targets:
            continue
        best = max(targets, key=lambda t: (cosine(keys[i].tolist(), keys[t].tolist()), -t))
        joined[best].append(i)
    rows = [features[i] for i in dominant]
    for t in targets:
        if not joined[t]:
            rows.append(features[t])
        elif official_sum:
            rows.append(features[t] + sum(features[i] for i in joined[t]) / len(joined[t]))
        else:
            rows.append((features[t] + sum(features[i] for i in joined[t])) / (1 + len(joined[t])))
    return torch.stack(rows), dominant + targets


def dycoke(frames: Tensor, k: int) -> list[int]:
    """Official temporal merging with its quirks, an even number of frames above 4: indices into n * c."""
    n, c, _ = frames.shape
    whole = {i: list(range(c)) for i in range(n)}

    def least_similar(a: int, b: int) -> list[int]:
        similarity = [cosine(frames[a, j].tolist(), frames[b, j].tolist()) for j in range(c)]
        return sorted(range(c), key=lambda j: (similarity[j], j))[:k]

    for i in range(n // 2):
        whole[2 * i + 1] = least_similar(2 * i, 2 * i + 1)
    i = 0
    while i < n - 4:
        whole[i + 2] = least_similar(i, i + 2)
        i += 4
    return [frame * c + j for frame in range(n) for j in whole[frame]]


def vidcom2(tokens: Tensor, ratio: float) -> list[list[int]]:
    n, c, d = tokens.shape
    flat = tokens.reshape(n * c, d)
    mean = flat.mean(0)
    variance = [float(((flat[:, j] - mean[j]) ** 2).sum()) for j in range(d)]
    quiet = sorted(sorted(range(d), key=lambda j: (variance[j], j))[: d // 2])
    x = tokens[:, :, quiet]
    x = x / x.norm(dim=-1, keepdim=True)
    video_centre = x.reshape(n * c, -1).mean(0)

    def g(token: Tensor, centre: Tensor) -> float:
        distance = float(((token - centre) ** 2).sum())
        return sum(math.exp(-distance / (2 * a)) for a in (1 / 8, 1 / 4, 1 / 2, 1, 2))

    g_video = [[g(x[f, j], video_centre) for j in range(c)] for f in range(n)]
    g_frame = [[g(x[f, j], x[f].mean(0)) for j in range(c)] for f in range(n)]
    u = [-sum(row) / c for row in g_video]
    e = [math.exp((value - max(u)) / 0.01) for value in u]
    softmax = [value / sum(e) for value in e]
    kept = []
    for f in range(n):
        frame_ratio = ratio * (1 + softmax[f] - sum(softmax) / n)
        order = sorted(range(c), key=lambda j: g_video[f][j] + g_frame[f][j])
        kept.append(sorted(order[: min(c, max(0, round(frame_ratio * c)))]))
    return kept


def pyramiddrop(scores: Sequence[float], n_visual: int, ratio: float) -> list[int]:
    return fastv(scores, int(n_visual * ratio))


def bilinear_half(grid: Tensor) -> Tensor:
    """(g, g, w) -> (ceil(g/2), ceil(g/2), w): bilinear, half-pixel centres (align_corners=False)."""
    g, side = len(grid), math.ceil(len(grid) / 2)
    out = torch.empty(side, side, grid.shape[-1])
    for row in range(side):
        for column in range(side):
            y, x = (max(0.0, (i + 0.5) * g / side - 0.5) for i in (row, column))
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, g - 1), min(x0 + 1, g - 1)
            top = grid[y0, x0] * (1 - (x - x0)) + grid[y0, x1] * (x - x0)
            bottom = grid[y1, x0] * (1 - (x - x0)) + grid[y1, x1] * (x - x0)
            out[row, column] = top * (1 - (y - y0)) + bottom * (y - y0)
    return out


def average_half(grid: Tensor) -> Tensor:
    """(g, g, w) -> (g // 2, g // 2, w)."""
    side = len(grid) // 2
    rows = [
        torch.stack([grid[2 * r : 2 * r + 2, 2 * q : 2 * q + 2].mean((0, 1)) for q in range(side)]) for r in range(side)
    ]
    return torch.stack(rows)


def angle(a: Sequence[float], b: Sequence[float]) -> float:
    return math.acos(max(-1.0, min(1.0, cosine(a, b))))


def onsets_at(frames: list[list[list[float]]], theta: float, k: int) -> list[int]:
    """What stands at theta with refreshes every k, walked position by position and frame by frame."""
    n, c = len(frames), len(frames[0])
    kept = []
    for j in range(c):
        run, shown = frames[0][j], 0
        for f in range(n):
            if f == 0 or angle(frames[f][j], run) > theta:
                run, shown = frames[f][j], f
                kept.append(f * c + j)
            elif f - shown >= k:
                shown = f
                kept.append(f * c + j)
    return sorted(kept)


def onsets(tokens: Tensor, budget: int, k: int, floor: float = 0.0) -> list[int]:
    frames = tokens.double().tolist()
    n, c = len(frames), len(frames[0])
    budget = max(budget, c)
    if budget >= n * c:
        return list(range(n * c))
    while len(onsets_at(frames, math.pi, k)) > budget:
        k += 1
    low, high = floor, math.pi
    for _ in range(20):
        middle = (low + high) / 2
        if len(onsets_at(frames, middle, k)) <= budget:
            high = middle
        else:
            low = middle
    return onsets_at(frames, high, k)


def evs(tokens: Tensor, n_keep: int) -> list[int]:
    n, c, _ = tokens.shape
    score = [255.0] * c
    for f in range(1, n):
        score += [1 - cosine(tokens[f, j].tolist(), tokens[f - 1, j].tolist()) for j in range(c)]
    return sorted(sorted(range(n * c), key=lambda i: (-score[i], i))[: max(c, n_keep)])


def echoprune(tokens: Tensor, words: Tensor | None, n_keep: int) -> list[int]:
    n, c, _ = tokens.shape
    frames = tokens.tolist()
    named = [] if words is None else words.tolist()
    score = []
    for f in range(n):
        for j in range(c):
            value = max([cosine(frames[f][j], w) for w in named], default=0.0)
            if f:
                alike = [cosine(frames[f][j], before) for before in frames[f - 1]]
                e = [math.exp(a / 0.5) for a in alike]
                value -= alike[j] + sum(w * a for w, a in zip(e, alike, strict=True)) / sum(e)
            score.append(value)
    first = min(n_keep, c, max(1, n_keep // n))
    opening = sorted(range(c), key=lambda i: (-score[i], i))[:first]
    others = sorted(range(c, n * c), key=lambda i: (-score[i], i))[: n_keep - first]
    return sorted(opening + others)


def vcast(tokens: Tensor, n_keep: int) -> list[int]:
    n, c, d = tokens.shape
    frames = tokens.double().tolist()
    path = []
    for frame in frames:
        mean = [sum(token[i] for token in frame) / c for i in range(d)]
        length = math.sqrt(sum(x * x for x in mean))
        path.append([x / length for x in mean])

    def step(f: int) -> list[float]:
        return [b - a for a, b in zip(path[f - 1], path[f], strict=True)]

    turn = [1.0 if f in (0, n - 1) else 1 - cosine(step(f), step(f + 1)) for f in range(n)]
    e = [math.exp(t / 0.7) for t in turn]
    weight = [x / sum(e) for x in e]
    exact = [1 + w * max(0, n_keep - n) for w in weight]
    counts = [min(c, math.floor(x)) for x in exact]
    wanted = min(max(n, n_keep), n * c)
    while sum(counts) < wanted:  # one round gives each frame that is not full at most one more
        for f in sorted(range(n), key=lambda f: (math.floor(exact[f]) - exact[f], f)):
            if counts[f] < c and sum(counts) < wanted:
                counts[f] += 1
    kept = []
    for f, frame in enumerate(frames):
        norms = [math.sqrt(sum(x * x for x in token)) for token in frame]
        spread = max(norms) - min(norms)
        score = [
            1 - cosine(token, path[f]) + ((norm - min(norms)) / spread if spread else 0.0)
            for token, norm in zip(frame, norms, strict=True)
        ]
        kept += [f * c + j for j in sorted(range(c), key=lambda j: (-score[j], j))[: counts[f]]]
    return sorted(kept)
