"""Which clips meet in a batch, and which caption of each is read; every draw from one seeded generator.

What the losses see as negatives is decided here, and it decides what matching later adds over contrast.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ivcore.config import Phase
from ivcore.data.loader import Captions
from ivcore.errors import UserError

GROUP = 8  # clips of a neighbour group: an anchor and 7 that the model confuses with it
NEAREST = 24  # the 7 are drawn from this many nearest


@dataclass(frozen=True)
class Batch:
    """Clips of one step: rows in the input artifact, captions in one language and length, and family numbers."""

    rows: list[int]
    captions: list[str]
    families: torch.Tensor  # int64 [B]
    kind: str  # language and text class, e.g. en/short


class Batches:
    """The batches of a phase, in order; the same seed gives the same ones."""

    def __init__(self, captions: Captions, clip_ids: Sequence[str], phase: Phase, batch_size: int, seed: int) -> None:
        """`clip_ids` are the rows of the input artifact; only those of the training split are used."""
        self.phase, self.seed = phase, seed
        row_of = {clip: row for row, clip in enumerate(clip_ids)}
        self.texts: dict[tuple[str, str], dict[int, list[str]]] = {}
        for language in phase.languages:
            for text_class in ("short", "long"):
                of_clip: dict[int, list[str]] = {}
                for _, clip, text in captions.texts(language, text_class, "train"):
                    if clip in row_of:
                        of_clip.setdefault(row_of[clip], []).append(text)
                if len(of_clip) > 1:
                    self.texts[language, text_class] = of_clip
        if not self.texts:
            raise UserError(f"phase {phase.name}: no two training clips have captions in {', '.join(phase.languages)}")
        number: dict[str, int] = {}
        self.family = [number.setdefault(captions.family(clip), len(number)) for clip in clip_ids]
        self.batch_size = min(batch_size, min(len(t) for t in self.texts.values()))
        self.neighbours: dict[int, np.ndarray] | None = None  # set before batches of neighbours are asked for

    def __iter__(self) -> Iterator[Batch]:
        """One batch a step, `phase.steps` in all."""
        draw = np.random.default_rng([self.seed, sum(self.phase.name.encode())])
        pools = {kind: np.array(sorted(of_clip)) for kind, of_clip in self.texts.items()}
        queues: dict[tuple[str, str], np.ndarray] = {}
        for _ in range(self.phase.steps):
            kind = self._kind(draw)
            grouped = self.phase.batches != "random" and draw.random() < self.phase.group_share
            if not grouped:  # without replacement until the pool is used up
                queue = queues.get(kind, np.array([], dtype=int))
                if len(queue) < self.batch_size:
                    queue = draw.permutation(pools[kind])
                rows, queues[kind] = queue[: self.batch_size], queue[self.batch_size :]
            elif self.phase.batches == "families":
                rows = self._families(pools[kind], draw)
            else:
                rows = self._neighbours(pools[kind], draw)
            texts = self.texts[kind]
            captions = [texts[r][draw.integers(len(texts[r]))] for r in rows]
            families = torch.tensor([self.family[r] for r in rows])
            yield Batch([int(r) for r in rows], captions, families, "/".join(kind))

    def _kind(self, draw: np.random.Generator) -> tuple[str, str]:
        wanted = "long" if draw.random() < self.phase.long_share else "short"
        kinds = [k for k in self.texts if k[1] == wanted] or list(self.texts)
        return kinds[draw.integers(len(kinds))]

    def _families(self, pool: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Whole families until the batch is full; the last one may be cut."""
        members: dict[int, list[int]] = {}
        for row in pool:
            members.setdefault(self.family[row], []).append(int(row))
        several = [m for m in members.values() if len(m) > 1] or list(members.values())
        rows = [r for i in draw.permutation(len(several))[: self.batch_size] for r in several[i]]
        return np.array(rows[: self.batch_size])

    def _neighbours(self, pool: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """Groups of an anchor and 7 of its nearest, none twice in a batch."""
        assert self.neighbours is not None
        rows: dict[int, None] = {}
        for anchor in draw.permutation(pool):
            if int(anchor) in rows:
                continue
            near = [int(r) for r in draw.permutation(self.neighbours[int(anchor)]) if int(r) not in rows]
            rows.update(dict.fromkeys([int(anchor), *near[: GROUP - 1]]))
            if len(rows) >= self.batch_size:
                break
        return np.array(list(rows)[: self.batch_size])


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
