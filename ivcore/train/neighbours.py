"""Which training clips a model confuses: the nearest by its own similarity, as a phase begins."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional as F

from ivcore.errors import UserError
from ivcore.models import S2Model
from ivcore.retrieval.embed import Encoder
from ivcore.train.batches import Kind
from ivcore.train.source import Source, tokens

BATCH = 256
NEAREST = 24  # a group of neighbours is drawn from this many


@torch.no_grad()
def confused(
    encoder: Encoder, source: Source, captions: Mapping[int, str], pools: Mapping[Kind, np.ndarray]
) -> dict[Kind, dict[int, np.ndarray]]:
    """For each row of a pool the rows of it that the model confuses it with, nearest first; in float32.

    Args:
        captions: of each row of the source that is in a pool, the caption that is compared.
    """
    encoder = dataclasses.replace(encoder, dtype=torch.float32)
    model = encoder.model
    if not isinstance(model, S2Model):
        raise UserError("batches of neighbours are made for s2 phases; clip phases take random or families")
    rows = sorted(captions)
    model.train(False)
    video, text = [], []
    for part in (rows[start : start + BATCH] for start in range(0, len(rows), BATCH)):
        pooled = model.pool(tokens(encoder, source, part))
        video.append(F.normalize(model.project_video(pooled).float(), dim=-1).cpu())
        text.append(encoder.text(*encoder.tokenizer.encode([captions[r] for r in part], encoder.text_len))[1].cpu())
    model.train()
    videos, texts, place = torch.cat(video), torch.cat(text), {row: n for n, row in enumerate(rows)}
    found = {}
    for kind, pool in pools.items():
        own = np.unique(pool).tolist()
        some = [place[row] for row in own]
        found[kind] = nearest(videos[some], texts[some], own)
    return found


def nearest(video: torch.Tensor, text: torch.Tensor, rows: Sequence[int]) -> dict[int, np.ndarray]:
    """For each row the rows it is most confused with: highest cosine of its caption with other videos.

    Args:
        video: unit vectors [N, E], in the order of `rows`.
        text: unit vectors [N, E], likewise.
        rows: the N row numbers.
    """
    number = np.array(rows)
    out: dict[int, np.ndarray] = {}
    for start in range(0, len(text), 1024):
        sim = text[start : start + 1024] @ video.T  # [chunk, N]
        sim[torch.arange(len(sim)), torch.arange(start, start + len(sim))] = -2.0
        top = sim.topk(min(NEAREST, len(video) - 1), dim=1).indices.numpy()
        out.update({int(number[start + i]): number[top[i]] for i in range(len(top))})
    return out
