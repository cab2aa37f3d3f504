"""Video-text matching: the fusion layers say of a pair whether it belongs together; negatives are the hard ones.

Shapes: B videos and as many texts, E embedding, L tokens, H hidden.
Source: InternVideo2 multi_modality, models/criterions.py (VTC_VTM_Loss.vtm_loss).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ivcore.errors import UserError
from ivcore.losses.vtc import same_id, similarity


@torch.no_grad()
def negative_weights(video: Tensor, text: Tensor, temp: Tensor | float, ids: Tensor) -> tuple[Tensor, Tensor]:
    """How likely each other sample is drawn as a negative: (texts for each video, videos for each text), [B, B] each.

    The softmax of the similarities with equal ids set to 0; the rows therefore need not add up to 1.
    """
    sim = similarity(video, text, temp)  # [B, B]
    return tuple(_weights(side, ids) for side in (sim, sim.T))  # type: ignore[return-value]


def _weights(sim: Tensor, ids: Tensor) -> Tensor:
    weights = sim.softmax(dim=1)
    weights = torch.nan_to_num(weights, nan=1e-2, posinf=1e-2, neginf=1e-2)  # upstream's guard against overflow
    return weights.masked_fill(same_id(ids), 0.0)


@torch.no_grad()
def vtm_negatives(
    video: Tensor, text: Tensor, temp: Tensor | float, ids: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One hard negative a row: (video index for each text, text index for each video), int64 [B] each.

    Drawn from `negative_weights` (videos first, then texts). Where every other sample has weight zero (a low
    temperature rounds them off) the draw is even among the samples of another id. A row whose id fills the whole
    batch has no negative: it gets the next row, (i + 1) mod B, which is a positive in truth. Batches with more than
    one id never meet this; a loader that lets it happen should skip the matching loss for that batch.

    Raises:
        UserError: if the batch holds fewer than two samples.
    """
    if len(ids) < 2:
        raise UserError("matching needs a batch of at least 2 videos; with 1 leave the matching loss out")
    texts_for_video, videos_for_text = negative_weights(video, text, temp, ids)
    return _draw(videos_for_text, ids, generator), _draw(texts_for_video, ids, generator)


def _draw(weights: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
    others = (~same_id(ids)).to(weights.dtype)  # [B, B]
    empty = weights.sum(dim=1, keepdim=True) <= 0.0  # [B, 1]
    weights = torch.where(empty, others, weights)
    following = torch.roll(torch.eye(len(ids), device=weights.device, dtype=weights.dtype), 1, dims=1)
    weights = torch.where(weights.sum(dim=1, keepdim=True) <= 0.0, following, weights)
    # Drawn on the generator's device, so that a CPU generator serves a model on any device and draws the same there.
    drawn = torch.multinomial(weights.to(generator.device), 1, generator=generator)  # [B, 1]
    return drawn[:, 0].to(ids.device)


def vtm_loss(
    model: Any,
    states: Tensor,
    text_mask: Tensor,
    kv: list[tuple[Tensor, Tensor]],
    neg_video: Tensor,
    neg_text: Tensor,
    unpadded: bool = True,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of match / no match over 3B pairs: (scalar, logits [3B, 2]), float32.

    The pairs in order: (video i, text i), (video neg_video[i], text i), (video i, text neg_text[i]); i runs within.

    Args:
        model: has `match_unpadded(states, mask, kv, video_index)` and `match`, as S2Model.
        states: [B, L, H], the uncorrupted text states.
        text_mask: [B, L].
        kv: of the B videos, from `video_kv`; projected once, read three times.
        neg_video: int [B], a video for each text.
        neg_text: int [B], a text for each video.
        unpadded: leave padding out; the same numbers, and the host has to be asked for lengths.
    """
    text_index, video_index = pairs(neg_video, neg_text)
    match = model.match_unpadded if unpadded else model.match
    logits = match(states[text_index], text_mask[text_index], kv, video_index).float()  # [3B, 2]
    labels = (torch.arange(len(logits), device=logits.device) < len(states)).long()  # [3B]
    return F.cross_entropy(logits, labels), logits


def pairs(neg_video: Tensor, neg_text: Tensor) -> tuple[Tensor, Tensor]:
    """(text of each pair, video of each pair), int [3B]: the true pairs, then each text with its negative video, then
    each video with its negative text.

    >>> text, video = pairs(torch.tensor([1, 0]), torch.tensor([1, 0]))
    >>> text.tolist(), video.tolist()
    ([0, 1, 0, 1, 1, 0], [0, 1, 1, 0, 0, 1])
    """
    own = torch.arange(len(neg_video), device=neg_video.device)
    return torch.cat([own, own, neg_text]), torch.cat([own, neg_video, own])
