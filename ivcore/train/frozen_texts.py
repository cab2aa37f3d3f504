"""Texts of a frozen text tower: every caption of a phase goes through it once, before the first step.

Shapes: B captions, L tokens, H hidden of the tower, before its last matrix (which may train).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ivcore.models.base import VideoTextModel
from ivcore.models.clip import ClipModel
from ivcore.models.mobileclip import MobileClipTower
from ivcore.text.tokenizer import Tokenizer

BATCH = 128
LAST_MATRIX = ("text_encoder.text_projection", "text_encoder.projection_layer")


class FrozenTexts:
    """What the tower says of each caption, kept in memory."""

    @torch.no_grad()
    def __init__(
        self, model: ClipModel, tokenizer: Tokenizer, captions: Iterable[str], text_len: int, dtype: torch.dtype
    ) -> None:
        """`dtype`: of the arithmetic. The captions go in one order of their own, so a resumed phase finds the same."""
        device = model.temp.device
        ids, mask = tokenizer.encode(unique := sorted(set(captions)), text_len)
        lengths, found = mask.sum(dim=1), []
        order = lengths.argsort(stable=True)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            for rows in order.split(BATCH):  # of like length, so little padding is computed
                found.append(model.read_text(ids[rows, : int(lengths[rows].max())].to(device)).cpu())
        self._read = torch.cat(found)  # [captions, H]
        self._row_of = {unique[row]: n for n, row in enumerate(order.tolist())}

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """[B, H], on the CPU."""
        return self._read[[self._row_of[caption] for caption in captions]]


def pays(model: VideoTextModel, num_captions: int, samples: int) -> bool:
    """Whether the tower stands still and the phase reads a caption more than once on average.

    MobileCLIP's is left out: it stretches its positions over the length of the batch, so no text stands for itself.
    """
    still = (
        isinstance(model, ClipModel)
        and not isinstance(model.text_encoder, MobileClipTower)
        and not any(
            p.requires_grad
            for n, p in model.named_parameters()
            if n.startswith("text_encoder.") and n not in LAST_MATRIX
        )
    )
    return still and num_captions < samples
