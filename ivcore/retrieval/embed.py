"""What scoring compares: embeddings of a gallery of videos and of the texts that describe them.

Shapes: T texts, V videos, L text tokens, H hidden, N video tokens, C vision width, E embedding.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ivcore.models import ClipModel, S2Model
from ivcore.models.base import VideoTextModel
from ivcore.text.tokenizer import Tokenizer

BATCH = 128
TokensOf = Callable[[np.ndarray], Tensor]  # video numbers [n] -> float [n, N, C]


@dataclass(frozen=True)
class Texts:
    """Texts as a model sees them: embeddings float32 [T, E]; for s2 also states [T, L, H] and mask [T, L]."""

    embedding: Tensor
    states: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Encoder:
    """A model with its tokenizer, in the arithmetic of the config; everything it returns is float32."""

    model: VideoTextModel
    tokenizer: Tokenizer
    text_len: int
    device: torch.device
    dtype: torch.dtype

    def arithmetic(self) -> torch.autocast:
        """The towers run in `dtype`; similarities and logits are compared in float32 whatever it is."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def texts(self, captions: list[str]) -> Texts:
        """Every text, shortest first within the work, in the order given in the answer."""
        ids, mask = self.tokenizer.encode(captions, self.text_len)
        lengths = mask.sum(dim=1)
        embedding, states = [], []
        order = lengths.argsort(stable=True)
        for rows in order.split(BATCH):
            length = int(lengths[rows].max())
            some, one = self.text(ids[rows, :length], mask[rows, :length])
            embedding.append(one.cpu())
            if some is not None:
                states.append(F.pad(some.cpu(), (0, 0, 0, ids.shape[1] - length)))  # [b, L, H]
        back = order.argsort()
        return Texts(torch.cat(embedding)[back], torch.cat(states)[back] if states else None, mask if states else None)

    def text(self, ids: Tensor, mask: Tensor) -> tuple[Tensor | None, Tensor]:
        """(states [B, L, H] of s2 or None, unit embeddings [B, E]), both float32, on the model's device."""
        ids, mask = ids.to(self.device), mask.to(self.device)
        with self.arithmetic():
            if isinstance(self.model, S2Model):
                states = self.model.encode_text(ids, mask)
                return states.float(), F.normalize(self.model.project_text(states).float(), dim=-1)
            assert isinstance(self.model, ClipModel)
            return None, F.normalize(self.model.encode_text(ids).float(), dim=-1)

    def video(self, tokens: Tensor) -> Tensor:
        """Unit embeddings of stored tokens: [B, N, C] -> float32 [B, E], on the model's device."""
        with self.arithmetic():
            pooled = self.model.pool(tokens.to(self.device))  # type: ignore[operator]
            out = self.model.project_video(pooled) if isinstance(self.model, S2Model) else pooled
        return F.normalize(out.float(), dim=-1)

    def videos(self, tokens_of: TokensOf, num: int) -> Tensor:
        """Unit embeddings of videos 0 to num - 1: float32 [V, E], on the CPU."""
        blocks = (np.arange(first, min(first + BATCH, num)) for first in range(0, num, BATCH))
        return torch.cat([self.video(tokens_of(block)).cpu() for block in blocks])
