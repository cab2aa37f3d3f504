"""Which video tokens a training step leaves out. Never used at test time, nor in clip.

Shapes: B videos, N patches, K kept patches.
"""

import torch
from torch import Tensor

from ivcore.errors import UserError


def random_drop_mask(num_videos: int, num_tokens: int, ratio: float, generator: torch.Generator) -> Tensor:
    """bool [B, 1+N], True = dropped: int(ratio * N) patches of each video, drawn over space and time together.

    `num_tokens` is N, without the class token; the class token (slot 0) always stays. The mask lies on the
    generator's device. Upstream trains videos with 0.8 and images with 0.5 (mask type "random").

    >>> g = torch.Generator().manual_seed(0)
    >>> mask = random_drop_mask(2, 64, 0.8, g)
    >>> mask.shape, mask.sum(1).tolist(), mask[:, 0].any().item()
    (torch.Size([2, 65]), [51, 51], False)

    Raises:
        UserError: if the ratio is not in [0, 1).
    """
    return drop_mask(drop_scores(num_videos, num_tokens, generator), ratio)


def drop_scores(num_videos: int, num_tokens: int, generator: torch.Generator) -> Tensor:
    """float32 [B, N] in [0, 1): a patch with a low score goes first."""
    return torch.rand(num_videos, num_tokens, generator=generator, device=generator.device)


def drop_mask(scores: Tensor, ratio: float) -> Tensor:
    """The same with the draws given: [B, N] -> bool [B, 1+N]."""
    if not 0.0 <= ratio < 1.0:
        raise UserError(f"a drop ratio lies in [0, 1), got {ratio}")
    num_videos, num_tokens = scores.shape
    num_dropped = int(ratio * num_tokens)
    mask = torch.zeros(num_videos, 1 + num_tokens, dtype=torch.bool, device=scores.device)
    return mask.scatter_(1, 1 + scores.argsort(dim=1)[:, :num_dropped], True)
