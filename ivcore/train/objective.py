"""The losses of one step as one module: s2 (VTC, VTM, MLM) and clip (VTC alone).

Shapes: B clips and as many captions, L text tokens, N patches, C vision width, E embedding.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ivcore.config import Phase
from ivcore.losses.mlm import mlm_loss
from ivcore.losses.ranks import Gradient, gather, share
from ivcore.losses.vtc import vtc_loss
from ivcore.losses.vtm import vtm_loss
from ivcore.models.base import VideoTextModel
from ivcore.models.s2 import S2Model
from ivcore.text.tokenizer import Tokenizer
from ivcore.train.random_draws import Draws


@dataclass(frozen=True)
class Inputs:
    """A batch as the models take it."""

    video: Tensor  # float [B, T, 3, H, W], or tokens [B, 1+N, C] of a frozen trunk
    ids: Tensor  # int64 [B, L]
    mask: Tensor  # int64 [B, L]
    samples: Tensor  # int64 [B]; equal = the same clip
    families: Tensor  # int64 [B]
    text: Tensor | None = None  # [B, H] of a frozen text tower (clip), before its last matrix


class Objective(nn.Module):
    """Model and losses of a phase; what is wrapped when several processes train together."""

    def __init__(self, model: VideoTextModel, tokenizer: Tokenizer, phase: Phase, gradient: Gradient = "full") -> None:
        super().__init__()
        self.model, self.tokenizer, self.phase, self.gradient = model, tokenizer, phase, gradient

    def forward(self, batch: Inputs, draws: Draws, full: bool) -> dict[str, Tensor]:
        """The losses by name, unweighted; matching and masked words only when `full`."""
        vectors, tokens, states = self.encode(batch, draws)
        losses = self.contrast(*vectors, batch.samples, batch.families) if self.phase.vtc else {}
        if full and self.fuses:
            losses.update(self.fused(batch, draws, vectors, tokens, states))
        return losses

    @property
    def fuses(self) -> bool:
        """There are losses that read text and video together."""
        return isinstance(self.model, S2Model) and bool(self.phase.vtm or self.phase.mlm)

    def encode(self, batch: Inputs, draws: Draws) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor | None]:
        """((video [B, E], text [B, E]), tokens [B, 1+N, C], text states [B, L, H] of s2)."""
        model: Any = self.model
        tokens = batch.video if batch.video.ndim == 3 else self._tokens(batch.video, draws)
        if isinstance(model, S2Model):
            states = model.encode_text(batch.ids, batch.mask, unpadded=True)
            return (model.project_video(model.pool(tokens)), model.project_text(states)), tokens, states
        text = model.encode_text(batch.ids) if batch.text is None else model.project_text(batch.text)
        return (model.pool(tokens), text), tokens, None

    def _tokens(self, video: Tensor, draws: Draws) -> Tensor:
        """The trunk's tokens [B, 1+N, C], some of s2's dropped where the phase says so."""
        model: Any = self.model
        is_image = video.shape[1] == 1
        dropped = self.phase.image_token_drop if is_image else self.phase.token_drop
        args = []
        if dropped and isinstance(model, S2Model):
            num_patches = model.num_patches // (model.vision_encoder.shape.grid[0] if is_image else 1)
            args = [draws.token_drop(len(video), num_patches, dropped).to(video.device)]
        tokens: Tensor = model.encode_tokens(video, *args)
        return tokens

    def contrast(self, video: Tensor, text: Tensor, samples: Tensor, families: Tensor) -> dict[str, Tensor]:
        """VTC over the rows of every process; the binding swaps are left out of it where the phase says so."""
        video, text = gather(video, self.gradient), gather(text, self.gradient)
        samples, families = gather(samples), gather(families)
        swaps = families[:, None] == families[None, :] if self.phase.vtc_negatives == "other_scenes" else None
        return {"vtc": vtc_loss(video, text, self.model.temp, samples, swaps)}

    def fused(
        self, batch: Inputs, draws: Draws, vectors: tuple[Tensor, ...], tokens: Tensor, states: Any
    ) -> dict[str, Tensor]:
        """Matching and masked words, of the clips of this process; arguments as `encode` gives them."""
        model: Any = self.model
        losses: dict[str, Tensor] = {}
        kv = model.video_kv(tokens)  # once for the 3B pairs and the masked words
        if self.phase.vtm:
            video, text = (v.detach() for v in vectors)
            negatives = draws.negatives(video, text, model.temp.detach(), batch.samples, self.phase)
            losses["vtm"], _ = vtm_loss(model, states, batch.mask, kv, *negatives)
        if self.phase.mlm:
            corrupted, labels = draws.masked_words(batch.ids, batch.mask, self.tokenizer)
            chosen = labels != -100
            fused = model.fuse_at(model.encode_text(corrupted, batch.mask, unpadded=True), batch.mask, kv, chosen)
            loss = mlm_loss(model.mlm_logits(fused)[None], labels[chosen][None])
            losses["mlm"] = loss * share(chosen.sum())
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum that is trained on."""
        return torch.stack([getattr(self.phase, name) * loss for name, loss in losses.items()]).sum()
