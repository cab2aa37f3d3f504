"""Which clips meet in a batch, and which caption of each is read: a pure function of the seed and the phase.

What the losses see as negatives is decided here, and it decides what matching later adds over contrast. No data is
read, so a run that goes on from step N draws the N before it anew, and the number of processes plays no part.
"""

import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ivcore.config import Phase
from ivcore.datasets.captions import Captions
from ivcore.errors import UserError

GROUP = 8  # clips of a neighbour group: an anchor and 7 that the model confuses with it (`neighbours`)
ANY = "any"  # in place of a language: drawn clip by clip

Kind = tuple[str, str, str]  # media, language, text class


def sample_ids(rows: Sequence[int], captions: Sequence[str]) -> list[int]:
    """Equal for what shows or says the same: one clip, or clips with one caption; those are no negatives of each other.

    >>> sample_ids([4, 7, 9, 4], ["a dog", "a cat", "a dog", "it runs"])
    [0, 1, 0, 0]
    """
    clip, text = (np.unique(x, return_inverse=True)[1] for x in (rows, captions))
    size = len(rows)
    graph = coo_array((np.ones(size), (clip, size + text)), shape=(2 * size, 2 * size))
    found: list[int] = connected_components(graph, directed=False)[1][clip].tolist()
    return found


@dataclass(frozen=True)
class Batch:
    """Clips of one step, videos or still images: rows in the input artifact, captions, and family numbers."""

    rows: list[int]
    captions: list[str]
    families: torch.Tensor  # int64 [B]
    kind: str  # media, language and text class, e.g. video/en/short
    views: list[int] = field(default_factory=list)  # of each row; empty: all plain


class Deck:
    """Numbers dealt in a random order, shuffled anew when too few are left."""

    def __init__(self, numbers: np.ndarray) -> None:
        self.numbers, self._left = numbers, numbers[:0]

    def deal(self, count: int, draw: np.random.Generator) -> np.ndarray:
        """The next `count` numbers, none more often than it is in the deck."""
        if len(self._left) < count:
            self._left = draw.permutation(self.numbers)
        out, self._left = self._left[:count], self._left[count:]
        return out


class Batches:
    """The batches of a phase, in order; the same seed gives the same ones.

    A clip with several captions shows them in turn, one each time it comes by, from a first one that hangs on the seed
    and the clip: after as many epochs as it has captions, each was read once. So it goes with its views, from the plain
    one on.
    """

    def __init__(
        self, captions: Captions, clip_ids: Sequence[str], phase: Phase, batch_size: int, seed: int, views: int = 1
    ) -> None:
        """`clip_ids` are the rows of the input artifact; only those of the training split are used."""
        self.phase, self.seed, self.views = phase, seed, views
        row_of = {clip: row for row, clip in enumerate(clip_ids)}
        media = [captions.media(clip) for clip in clip_ids]
        self.texts: dict[Kind, dict[int, list[str]]] = {}  # in the order in which a clip shows them
        for language, text_class in itertools.product(phase.languages, ("short", "long")):
            of_clip: dict[int, list[str]] = {}
            for _, clip, text in captions.texts(language, text_class, "train"):
                if clip in row_of:
                    of_clip.setdefault(row_of[clip], []).append(text)
            # Tokens of a frozen trunk are those of videos: an image has as few as it has frames, and is not kept.
            for kind in ("video",) if phase.reads_features else ("video", "image"):
                some = {row: texts for row, texts in of_clip.items() if media[row] == kind}
                if len(some) > 1:
                    self.texts[kind, language, text_class] = {
                        row: _from(texts, f"{seed} {phase.name} {clip_ids[row]}") for row, texts in some.items()
                    }
        if not self.texts:
            raise UserError(f"phase {phase.name}: no two training clips have captions in {', '.join(phase.languages)}")
        number: dict[str, int] = {}
        self.family = np.array([number.setdefault(captions.family(clip), len(number)) for clip in clip_ids])
        weight = np.array([captions.weight(clip) for clip in clip_ids])
        self.pools = {kind: np.repeat(rows, weight[rows]) for kind, rows in self._rows().items()}
        self.batch_size = min(batch_size, max(map(len, self.pools.values())))
        self.per_epoch = {m: self._batches_of(m, weight) for m in dict.fromkeys(kind[0] for kind in self.pools)}
        self.phase = phase.in_steps(sum(self.per_epoch.values()))  # epochs counted out in steps
        self.neighbours: dict[Kind, dict[int, np.ndarray]] = {}  # set before batches of neighbours are asked for

    def __iter__(self) -> Iterator[Batch]:
        """One batch a step, `phase.steps` in all."""
        draw = np.random.default_rng([self.seed, *self.phase.name.encode()])
        single = {kind: Deck(pool) for kind, pool in self.pools.items()}
        groups = self._groups()
        anchors = {k: Deck(np.arange(len(groups[k])) if groups[k] else np.unique(p)) for k, p in self.pools.items()}
        met = {kind: [0] * len(self.family) for kind in self.texts}  # times each row came by
        seen = [0] * len(self.family)  # the same, whatever it read
        turns = Deck(np.repeat(np.arange(len(self.per_epoch)), list(self.per_epoch.values())))
        for _ in range(self.phase.steps):
            media = list(self.per_epoch)[turns.deal(1, draw)[0] if len(self.per_epoch) > 1 else 0]
            kind = self._kind(media, draw)
            grouped = self.phase.batches != "random" and draw.random() < self.phase.group_share
            if not grouped or media == "image":
                rows = single[kind].deal(min(self.batch_size, len(self.pools[kind])), draw)
            else:
                rows = self._grouped(kind, anchors[kind], groups[kind], draw)
            captions, views = [], []
            for row, read in zip(rows.tolist(), self._read(kind, rows.tolist(), draw)):
                texts = self.texts[read][row]
                captions.append(texts[met[read][row] % len(texts)])
                met[read][row] += 1
                views.append(seen[row] % self.views)
                seen[row] += 1
            yield Batch(rows.tolist(), captions, torch.from_numpy(self.family[rows]), "/".join(kind), views)

    def sizes(self) -> dict[str, int]:
        """Clips of each batch that can come, by what it is made of: a small pool makes small ones."""
        found, groups, share = {}, self._groups(), self.phase.group_share
        for kind, pool in self.pools.items():
            grouped = self.phase.batches != "random" and kind[0] == "video" and share > 0
            if not self.comes(kind):
                continue
            if grouped:
                rows = set(itertools.chain.from_iterable(groups[kind])) or set(pool.tolist())
                found[f"{'/'.join(kind)} by {self.phase.batches}"] = min(self.batch_size, len(rows))
            if not grouped or share < 1:
                found["/".join(kind)] = min(self.batch_size, len(pool))
        return found

    def comes(self, kind: Kind) -> bool:
        """Whether a batch can be of this kind: its length is drawn, or is all that there is of its media."""
        media, _, text_class = kind
        drawn = self.phase.long_share > 0 if text_class == "long" else self.phase.long_share < 1
        return drawn or all(other[2] == text_class for other in self.pools if other[0] == media)

    def first_captions(self) -> dict[int, str]:
        """A caption of each video that a batch can show, in the first language it has one in."""
        found: dict[int, str] = {}
        for kind, texts in self.texts.items():
            if kind[0] == "video" and self.comes(kind):
                found = {row: shown[0] for row, shown in texts.items()} | found
        return found

    def _groups(self) -> dict[Kind, list[list[int]]]:
        """The families of each pool; none where batches are not made of them."""
        return {kind: self._families(kind) if self.phase.batches == "families" else [] for kind in self.pools}

    def _rows(self) -> dict[Kind, np.ndarray]:
        """Rows of each kind a batch can be of."""
        if self.phase.language_by == "batch":
            return {kind: np.array(sorted(of_clip)) for kind, of_clip in self.texts.items()}
        rows: dict[Kind, set[int]] = {}
        for (media, _, text_class), of_clip in self.texts.items():
            rows.setdefault((media, ANY, text_class), set()).update(of_clip)
        return {kind: np.array(sorted(some)) for kind, some in rows.items()}

    def _batches_of(self, media: str, weight: np.ndarray) -> int:
        """Batches of an epoch over the clips of this media, each as often as its weight says."""
        clips = np.unique(np.concatenate([pool for kind, pool in self.pools.items() if kind[0] == media]))
        return max(1, int(weight[clips].sum()) // self.batch_size)

    def _kind(self, media: str, draw: np.random.Generator) -> Kind:
        wanted = "long" if draw.random() < self.phase.long_share else "short"
        every = [kind for kind in self.pools if kind[0] == media]
        kinds = [kind for kind in every if kind[2] == wanted] or every
        return kinds[self._one_of([kind[1] for kind in kinds], draw)]

    def _one_of(self, languages: list[str], draw: np.random.Generator) -> int:
        """Place of one of these languages, drawn evenly or by the phase's weights."""
        weights: dict[str, float] = dict(zip(self.phase.languages, self.phase.language_weights))
        if not weights or ANY in languages:
            return int(draw.integers(len(languages)))
        share = np.array([weights[language] for language in languages])
        return int(draw.choice(len(languages), p=share / share.sum()))

    def _read(self, kind: Kind, rows: list[int], draw: np.random.Generator) -> list[Kind]:
        """The kind of caption that each row reads; where each clip draws its language, one of those it has."""
        media, language, text_class = kind
        if language != ANY:
            return [kind] * len(rows)
        kinds = [k for k in self.texts if k[0] == media and k[2] == text_class]
        found = []
        for row in rows:
            there = [k for k in kinds if row in self.texts[k]]
            found.append(there[self._one_of([k[1] for k in there], draw)])
        return found

    def _families(self, kind: Kind) -> list[list[int]]:
        """Rows by family: those with more than one clip, or all where there is none."""
        members: dict[int, list[int]] = {}
        for row in np.unique(self.pools[kind]).tolist():
            members.setdefault(int(self.family[row]), []).append(row)
        return [m for m in members.values() if len(m) > 1] or list(members.values())

    def _grouped(self, kind: Kind, deck: Deck, families: list[list[int]], draw: np.random.Generator) -> np.ndarray:
        """Whole families, or anchors with 7 of their nearest, until the batch is full; the last one may be cut."""
        rows: dict[int, None] = {}
        for _ in range(2 * len(deck.numbers)):  # once through may begin in the middle of a shuffle
            if len(rows) >= self.batch_size:
                break
            number = int(deck.deal(1, draw)[0])
            if families:
                rows.update(dict.fromkeys(families[number]))
            elif number not in rows:
                near = [int(r) for r in draw.permutation(self.neighbours[kind][number]) if int(r) not in rows]
                rows.update(dict.fromkeys([number, *near[: GROUP - 1]]))
        return np.array(list(rows)[: self.batch_size])


def _from(texts: list[str], name: str) -> list[str]:
    """The texts in their order, but begun at one that hangs on `name`."""
    first = zlib.crc32(name.encode()) % len(texts)
    return texts[first:] + texts[:first]
