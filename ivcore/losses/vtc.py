"""Video-text contrast: every video against every text of the batch.

Shapes: B videos and as many texts, E embedding, S segments of a video or prompts of a text.
Source: InternVideo2 multi_modality, models/criterions.py (VTC_VTM_Loss.vtc_loss, get_sim).
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def similarity(video: Tensor, text: Tensor, temp: Tensor | float) -> Tensor:
    """Cosine of every video with every text, over the temperature: float32 [videos, texts].

    video is [B, E] or [B, S, E], text [B', E] or [B', S', E]; with several vectors a side their similarities (not
    the vectors) are averaged.
    """
    video, text = F.normalize(video.float(), dim=-1), F.normalize(text.float(), dim=-1)
    video = video[:, None] if video.ndim == 2 else video  # [B, S, E]
    text = text[:, None] if text.ndim == 2 else text  # [B', S', E]
    with torch.autocast(video.device.type, enabled=False):
        sim = torch.einsum("vse,tpe->vtsp", video, text).mean(dim=(2, 3))  # [B, B']
    return sim / (temp.float() if isinstance(temp, Tensor) else temp)


def same_id(ids: Tensor) -> Tensor:
    """bool [B, B]: rows and columns that show the same thing and so are positives of each other."""
    return ids[:, None] == ids[None, :]


def vtc_loss(video: Tensor, text: Tensor, temp: Tensor | float, ids: Tensor, exclude: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of both directions against targets shared among equal ids; scalar float32.

    Args:
        video: [B, E] (or [B, S, E]), any dtype, any length: normalised here.
        text: [B, E] (or [B, S, E]).
        temp: temperature the cosines are divided by, 0-dim or a number.
        ids: int [B]; rows of equal id are positives of each other, sharing the target evenly.
        exclude: bool [B, B] or None, True at [i, j] = video i and text j are left out of the softmax of both
            directions (neither positive nor negative). The diagonal is never left out.

    Raises:
        ValueError: if the sides do not have B rows each.

    >>> one = torch.eye(2)
    >>> round(vtc_loss(one, one, 1.0, torch.tensor([0, 1])).item(), 4)  # log(1 + e^-1)
    0.3133
    >>> round(vtc_loss(one, one, 1.0, torch.tensor([7, 7])).item(), 4)  # both are positives: log(1 + e^-1) + 1/2
    0.8133
    """
    if not len(video) == len(text) == len(ids):
        raise ValueError(f"vtc needs as many videos as texts and ids, got {len(video)}, {len(text)}, {len(ids)}")
    sim = similarity(video, text, temp)  # [B, B]
    positive = same_id(ids)
    if exclude is not None:
        exclude = exclude & ~torch.eye(len(ids), dtype=torch.bool, device=exclude.device)
        sim = sim.masked_fill(exclude, float("-inf"))
        positive = positive & ~exclude
    video_to_text = _cross_entropy(sim, positive)
    text_to_video = _cross_entropy(sim.T, positive.T)
    return (video_to_text + text_to_video) / 2


def _cross_entropy(sim: Tensor, positive: Tensor) -> Tensor:
    log_probability = sim.log_softmax(dim=1).masked_fill(~positive, 0.0)  # minus infinity only where left out
    return -(log_probability.sum(dim=1) / positive.sum(dim=1)).mean()
