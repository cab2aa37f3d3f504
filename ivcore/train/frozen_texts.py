"""Texts of a frozen text tower: every caption of a phase goes through it once, before the first step.

Shapes: B captions, L tokens, H hidden of the tower, before its last matrix (which may train).
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ivcore.models.base import VideoTextModel
from ivcore.models.clip import ClipModel
from ivcore.models.mobileclip import MobileClipTower
from ivcore.retrieval.embed import Encoder

BATCH = 128
LAST_MATRIX = {"text_encoder.text_projection", "text_encoder.projection_layer"}


class FrozenTexts:
    """What the tower says of each caption, kept in memory."""

    @torch.no_grad()
    def __init__(self, encoder: Encoder, captions: Iterable[str]) -> None:
        """The captions go in one order of their own, so a resumed phase finds the same."""
        model = encoder.model
        assert isinstance(model, ClipModel)
        ids, mask = encoder.tokenizer.encode(unique := sorted(set(captions)), encoder.text_len)
        lengths, found = mask.sum(dim=1), []
        order = lengths.argsort(stable=True)
        with encoder.arithmetic():
            for rows in torch.split(order, BATCH):  # of like length, so little padding is computed
                found.append(model.read_text(ids[rows, : int(lengths[rows].max())].to(encoder.device)).cpu())
        self._read = torch.cat(found)  # [captions, H]
        self._row_of = {unique[row]: n for n, row in enumerate(order.tolist())}

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """[B, H], on the CPU."""
        return self._read[[self._row_of[caption] for caption in captions]]


def pays(model: VideoTextModel, num_captions: int, samples: int) -> bool:
    """Whether the tower stands still and the phase reads a caption more than once on average.

    MobileCLIP's is left out: it stretches its positions over the length of the batch, so no text stands for itself.
    """
    if not isinstance(model, ClipModel) or isinstance(model.text_encoder, MobileClipTower):
        return False
    trained = {n for n, p in model.named_parameters() if p.requires_grad and n.startswith("text_encoder.")}
    return trained <= LAST_MATRIX and num_captions < samples
