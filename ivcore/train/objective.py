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
    samples: Tensor  # int64 [B]; equal = the same clip, or the same caption
    families: Tensor  # int64 [B]
    text: Tensor | None = None  # [B, H] of a frozen text tower (clip), before its last matrix
    kept: Tensor | None = None  # int64 [B, 1+K], the tokens of the video that are read; None: all
    words: "Words | None" = None  # of MLM, in the steps that have it
    matches: bool = True  # there are two different samples, so that a pair can be wrong


@dataclass(frozen=True)
class Words:
    """The masked words: corrupted ids [B, L]; where the asked ones stand, int64 [W] of B * L; their ids [W].

    A batch in parts is averaged over them. So that its loss is the mean over its words, whatever part they stand in, a
    part that holds more of the words `asked` for on this rank has more `weight`.
    """

    ids: Tensor
    places: Tensor
    targets: Tensor
    weight: float
    asked: int


class Objective(nn.Module):
    """Model and losses of a phase; what is wrapped when several processes train together."""

    def __init__(
        self,
        model: VideoTextModel,
        tokenizer: Tokenizer,
        phase: Phase,
        gradient: Gradient = "full",
        packed: bool = True,
    ) -> None:
        """`packed`: texts without padding, for a CPU. On a GPU laying rows out anew costs more than padding does."""
        super().__init__()
        self.model, self.tokenizer, self.phase, self.gradient = model, tokenizer, phase, gradient
        self.packed = packed

    def forward(self, batch: Inputs, draws: Draws, full: bool) -> dict[str, Tensor]:
        """The losses by name, unweighted; matching and masked words only when `full`."""
        vectors, tokens, states = self.encode(batch)
        losses = self.contrast(*vectors, batch.samples, batch.families) if self.phase.vtc else {}
        if full and self.fuses:
            losses.update(self.fused(batch, draws, vectors, tokens, states))
        return losses

    @property
    def fuses(self) -> bool:
        """There are losses that read text and video together."""
        return isinstance(self.model, S2Model) and bool(self.phase.vtm or self.phase.mlm)

    def encode(self, batch: Inputs) -> tuple[tuple[Tensor, Tensor], Tensor, Tensor | None]:
        """((video [B, E], text [B, E]), tokens [B, 1+N, C], text states [B, L, H] of s2)."""
        model: Any = self.model
        args = () if batch.kept is None else (batch.kept,)
        tokens = batch.video if batch.video.ndim == 3 else model.encode_tokens(batch.video, *args)
        if isinstance(model, S2Model):
            states = model.encode_text(batch.ids, batch.mask, unpadded=self.packed)
            return (model.project_video(model.pool(tokens)), model.project_text(states)), tokens, states
        text = model.encode_text(batch.ids) if batch.text is None else model.project_text(batch.text)
        return (model.pool(tokens), text), tokens, None

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
        if self.phase.vtm and not batch.matches:  # no row has a negative: nothing to learn here
            losses["vtm"] = 0.0 * vectors[0].float().sum()
        elif self.phase.vtm:
            video, text = (v.detach() for v in vectors)
            one, other = draws.negatives(video, text, model.temp.detach(), batch.samples, self.phase)
            losses["vtm"], _ = vtm_loss(model, states, batch.mask, kv, one, other, unpadded=self.packed)
        if self.phase.mlm and batch.words is not None:
            words = batch.words
            states = model.encode_text(words.ids, batch.mask, unpadded=self.packed)
            if self.packed:
                asked = torch.zeros_like(batch.mask, dtype=torch.bool).flatten().index_fill(0, words.places, True)
                fused = model.fuse_at(states, batch.mask, kv, asked.unflatten(0, batch.mask.shape))
            else:
                fused = model.fuse(states, batch.mask, kv).flatten(0, 1).index_select(0, words.places)  # [W, H]
            loss = mlm_loss(model.mlm_logits(fused)[None], words.targets[None])
            losses["mlm"] = loss * words.weight * share(torch.full((), words.asked, device=loss.device))
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """The weighted sum that is trained on."""
        return torch.stack([getattr(self.phase, name) * loss for name, loss in losses.items()]).sum()
