"""The losses of one step: s2 (VTC, VTM, MLM) and clip (VTC alone).

Shapes: B clips and as many captions, L text tokens, N patches, C vision width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ivcore.config import Phase
from ivcore.data.tokenizer import Tokenizer
from ivcore.losses.mlm import mlm_corrupt, mlm_loss
from ivcore.losses.ranks import gather
from ivcore.losses.vtc import vtc_loss
from ivcore.losses.vtm import vtm_loss, vtm_negatives
from ivcore.models.clip import ClipModel
from ivcore.models.masking import random_drop_mask
from ivcore.models.s2 import S2Model

MLM_PROBABILITY = 0.5  # as published


@dataclass(frozen=True)
class Inputs:
    """A batch as the models take it: `video` float [B, T, 3, H, W], or `tokens` [B, 1+N, C] of a frozen trunk."""

    video: Tensor | None
    tokens: Tensor | None
    ids: Tensor  # int64 [B, L]
    mask: Tensor  # int64 [B, L]
    samples: Tensor  # int64 [B]; equal = the same clip
    families: Tensor  # int64 [B]


def s2_losses(
    model: S2Model, batch: Inputs, phase: Phase, full: bool, tokenizer: Tokenizer, draw: torch.Generator
) -> dict[str, Tensor]:
    """The losses of an s2 step by name, unweighted; matching and masked words only when `full`."""
    tokens = batch.tokens
    if tokens is None:
        assert batch.video is not None
        drop = None
        if phase.token_drop:
            drop = random_drop_mask(len(batch.video), model.num_patches, phase.token_drop, draw).to(batch.video.device)
        tokens = model.encode_tokens(batch.video, drop)
    states = model.encode_text(batch.ids, batch.mask)
    video, text = model.project_video(model.pool(tokens)), model.project_text(states)
    losses = {}
    if phase.vtc:
        losses["vtc"] = _contrast(video, text, model.temp, batch, phase)
    if full and (phase.vtm or phase.mlm):
        kv = model.video_kv(tokens)  # once for the 3B pairs and the masked words
    if full and phase.vtm:
        negatives = _negatives(video.detach(), text.detach(), model.temp.detach(), batch.samples, phase, draw)
        losses["vtm"], _ = vtm_loss(model, states, batch.mask, kv, *negatives)
    if full and phase.mlm:
        corrupted, labels = mlm_corrupt(
            batch.ids,
            batch.mask,
            tokenizer.vocab_size,
            tokenizer.mask_id,
            tokenizer.special_ids,
            MLM_PROBABILITY,
            draw,
        )
        fused = model.fuse(model.encode_text(corrupted, batch.mask), batch.mask, kv)
        chosen = labels != -100
        losses["mlm"] = mlm_loss(model.mlm_logits(fused[chosen])[None], labels[chosen][None])
    return losses


def _negatives(
    video: Tensor, text: Tensor, temp: Tensor, samples: Tensor, phase: Phase, draw: torch.Generator
) -> list[Tensor]:
    """Hard negatives, some replaced by even draws: from nothing, matching learns nothing if all it meets are swaps."""
    hard = vtm_negatives(video, text, temp, samples, draw)
    if not phase.even_negatives:
        return list(hard)
    even = vtm_negatives(video, text, 1e6, samples, draw)
    easy = (torch.rand(len(samples), generator=draw) < phase.even_negatives).to(samples.device)
    return [torch.where(easy, e, h) for e, h in zip(even, hard, strict=True)]


def clip_losses(model: ClipModel, batch: Inputs, phase: Phase) -> dict[str, Tensor]:
    """The contrastive loss of a clip step."""
    tokens = batch.tokens
    if tokens is None:
        assert batch.video is not None
        tokens = model.encode_tokens(batch.video)
    video, text = model.pool(tokens), model.encode_text(batch.ids)
    return {"vtc": _contrast(video, text, model.temp, batch, phase)}


def _contrast(video: Tensor, text: Tensor, temp: Tensor, batch: Inputs, phase: Phase) -> Tensor:
    """VTC over the rows of every process; the binding swaps are left out of it where the phase says so."""
    video, text, samples, families = (gather(rows) for rows in (video, text, batch.samples, batch.families))
    same_family = families[:, None] == families[None, :]  # bool [B, B]
    return vtc_loss(video, text, temp, samples, same_family if phase.vtc_negatives == "other_scenes" else None)
