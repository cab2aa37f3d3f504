"""Masked language: some words are hidden or swapped, and text and video together must name them.

Shapes: B texts, L tokens.
Source: InternVideo2 multi_modality, models/criterions.py (MLMLoss.mask).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

NO_TARGET = -100  # torch's ignore_index


def mlm_corrupt(
    ids: Tensor,
    mask: Tensor,
    vocab_size: int,
    mask_id: int,
    special_ids: Sequence[int],
    probability: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """(corrupted ids, labels), int64 [B, L] each; labels are -100 where nothing is asked.

    Every token is chosen with `probability`, except padding (mask 0) and special ids. Of the chosen 80% become
    `mask_id`, 10% any id of the vocabulary, 10% stay. Upstream: probability 0.5, special ids pad and [CLS].

    Args:
        ids: int [B, L].
        mask: [B, L], 1 = token.
        vocab_size: random ids are drawn from [0, vocab_size).
        mask_id: id of [MASK].
        special_ids: ids that are never chosen.
        probability: of a token to be chosen.
        generator: all draws come from it, on its device.
    """

    def draw() -> Tensor:
        return torch.rand(ids.shape, generator=generator, device=generator.device).to(ids.device)

    special = torch.isin(ids, torch.tensor(list(special_ids), dtype=ids.dtype, device=ids.device))
    chosen = (draw() < probability) & mask.bool() & ~special
    hidden = chosen & (draw() < 0.8)
    swapped = chosen & ~hidden & (draw() < 0.5)  # half of the remaining fifth
    words = torch.randint(vocab_size, ids.shape, generator=generator, device=generator.device).to(ids)
    return apply_corruption(ids, chosen, hidden, swapped, words, mask_id)


def apply_corruption(
    ids: Tensor, chosen: Tensor, hidden: Tensor, swapped: Tensor, words: Tensor, mask_id: int
) -> tuple[Tensor, Tensor]:
    """The same with the draws given: bool [B, L] three times, random words int [B, L] -> (corrupted ids, labels)."""
    labels = ids.masked_fill(~chosen, NO_TARGET)
    return torch.where(swapped, words, ids.masked_fill(hidden, mask_id)), labels


def mlm_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy averaged over the chosen tokens: logits [B, L, vocabulary], labels [B, L] -> scalar float32.

    0, with a gradient of 0, when no token was chosen.
    """
    total = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=NO_TARGET, reduction="sum")
    return total / (labels != NO_TARGET).sum().clamp(min=1)
