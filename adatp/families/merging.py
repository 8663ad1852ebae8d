"""Towers whose s x s neighbouring patches are shuffled into one token: what InternVL3 and SmolVLM2 share."""

from torch import Tensor
from torch.nn.functional import avg_pool2d

from adatp.visual import Ranking

FRAMES_PER_PASS = 32  # bounds the tower's memory; a clip has at most 32 frames


def merged_ranking(received: Tensor, keys: Tensor, merge: int) -> Ranking:
    """Means over the s x s patches of each token: received (n, P), keys (n, P, k)."""
    side = round(received.shape[1] ** 0.5)
    both = [received[..., None], keys]
    pooled = [avg_pool2d(x.transpose(1, 2).unflatten(2, (side, side)), merge).flatten(2) for x in both]  # (n, k, c)
    return Ranking(pooled[0][:, 0], pooled[1].transpose(1, 2))
