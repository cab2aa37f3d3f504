"""Who is asked what: the texts of one language and length, the videos of the gallery, and who belongs to whom.

Shapes: T texts, V videos of the gallery, V' videos that are asked, P true pairs, O pairs of a video and an option.
"""

import itertools
from collections.abc import Container, Iterator
from dataclasses import dataclass

import numpy as np

from ivcore.config import EvalConfig
from ivcore.datasets.captions import Captions
from ivcore.errors import UserError
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact


@dataclass(frozen=True)
class Slice:
    """The texts of one language and length, in the order of caption_id, and who belongs to whom.

    video: int [T], place of each text's clip in the gallery. asked: int [V'], the videos that have a text here: they
    are the video-to-text queries. pairs: by direction int [P, 2], (query, candidate), sorted. options: where every
    video has its own candidates int [O, 2], (query, candidate); None: all texts are.
    """

    language: str
    text_class: str
    caption_ids: list[str]
    captions: list[str]
    video: np.ndarray
    asked: np.ndarray
    pairs: dict[str, np.ndarray]
    options: np.ndarray | None = None

    @property
    def name(self) -> str:
        """LANGUAGE/CLASS."""
        return f"{self.language}/{self.text_class}"


def check_split(manifest: Artifact, frames: Artifact, evaluation: EvalConfig) -> None:
    """Whether there will be something to score, asked before there are features, or a model to make them.

    Raises:
        UserError: as `scored`.
    """
    rows = schemas.rows(frames.path / "index.parquet", schemas.FRAMES)
    scored(Captions(manifest), {row["clip_id"] for row in rows if row["error"] is None}, evaluation)


def scored(captions: Captions, seen: Container[str], evaluation: EvalConfig) -> list[str]:
    """The videos of the split, in manifest order; `seen` are the clips that were decoded.

    Raises:
        UserError: if there are none, or nothing is asked of them.
    """
    split = evaluation.split
    found = [clip for clip in captions.clips(split) if clip in seen and captions.media(clip) == "video"]
    if not found:
        raise UserError(f"split {split!r} has no video that could be decoded; eval.split names another, or add clips")
    asked = itertools.chain(described(captions, found, evaluation), chosen(captions, found, evaluation))
    if next(asked, None) is None:
        classes = " or ".join(evaluation.text_classes)
        raise UserError(
            f"split {split!r} has no captions in {', '.join(evaluation.languages)} ({classes}); eval.languages names "
            "others, or add captions"
        )
    return found


def described(captions: Captions, gallery: list[str], evaluation: EvalConfig) -> Iterator[tuple[Slice, int]]:
    """Retrieval: every language and length that has texts, and how many were left out as their clip has no features.

    A video with several texts has several true candidates, and so has a text that is said of several videos.
    """
    place = {clip: n for n, clip in enumerate(gallery)}
    for language in evaluation.languages:
        for text_class in evaluation.text_classes:
            every = captions.texts(language, text_class, evaluation.split)
            whole = [
                (id, caption, [c for c in (clip, *captions.also(id)) if c in place]) for id, clip, caption in every
            ]
            rows = [row for row in whole if row[2]]
            if not rows:
                continue
            pairs = np.array([(text, place[clip]) for text, row in enumerate(rows) for clip in sorted(set(row[2]))])
            pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
            asked = np.unique(pairs[:, 1])
            back = np.stack([np.searchsorted(asked, pairs[:, 1]), pairs[:, 0]], axis=1)
            both = {"t2v": pairs, "v2t": back[np.lexsort((back[:, 1], back[:, 0]))]}
            ids, strings = [r[0] for r in rows], [r[1] for r in rows]
            video = np.array([place[clips[0]] for *_, clips in rows])
            yield Slice(language, text_class, ids, strings, video, asked, both), len(every) - len(rows)


def chosen(captions: Captions, gallery: list[str], evaluation: EvalConfig) -> Iterator[Slice]:
    """Multiple choice and classification: every language and length that has options; a video with a true one is asked.

    Nothing of a retrieval data set.
    """
    place = {clip: n for n, clip in enumerate(gallery)}
    for language in evaluation.languages:
        for text_class in evaluation.text_classes:
            rows = captions.options(language, text_class)
            own = any(not relevant for *_, put in rows for _, relevant in put)
            placed = [(id, text, [(place[c], r) for c, r in put if c in place]) for id, text, put in rows]
            placed = [row for row in placed if row[2] or not own]  # an option of a video that is not there is nobody's
            true = np.array(sorted((v, text) for text, row in enumerate(placed) for v, relevant in row[2] if relevant))
            if not len(true):
                continue
            asked, query = np.unique(true[:, 0], return_inverse=True)
            put = np.array(sorted((v, text) for text, row in enumerate(placed) for v, _ in row[2])) if own else None
            options = None if put is None else np.stack([np.searchsorted(asked, put[:, 0]), put[:, 1]], axis=1)
            pairs = {"v2t": np.stack([query, true[:, 1]], axis=1)}
            ids, strings = [r[0] for r in placed], [r[1] for r in placed]
            yield Slice(language, text_class, ids, strings, np.array([], int), asked, pairs, options)
