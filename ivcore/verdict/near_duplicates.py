"""Captions that say the same of different videos, and ranks that do not count such an answer as wrong.

Shapes: Q queries, R rows of a table of scores, P pairs of a clip and what is said of it.

The rule: two captions of one language and length are near-duplicates when the same words stand in the same order after
case, punctuation, articles and forms of "to be" are taken away ("A man plays." and "the man plays"). A candidate counts
as right when the query's clip is said the same of: text to video, a video one of whose captions is a near-duplicate of
the query; video to text, a caption that is a near-duplicate of one of the video's own. Word order decides, so a swap
("red above blue", "blue above red") stays wrong. Ranks come from the rows that are kept, the k best.
"""

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ivcore.store import schemas
from ivcore.store.artifacts import Artifact

DROPPED = {
    "en": frozenset(["a", "an", "the", "is", "are", "was", "were", "be", "been", "being"]),
    "es": frozenset(["un", "una", "unos", "unas", "el", "la", "los", "las", "es", "son", "está", "están"]),
}
NO_SPACES = ("zh", "ja", "th")  # languages whose words are not set apart


def form(caption: str, language: str) -> str:
    """What is left of a caption when two are compared.

    >>> form("A man is playing the guitar.", "en") == form("man playing guitar", "en")
    True
    >>> form("red above blue", "en") == form("blue above red", "en")
    False
    """
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", caption).casefold())
    kept = [w for w in words if w not in DROPPED.get(language, ())] or words
    return ("" if language in NO_SPACES else " ").join(kept)


@dataclass(frozen=True)
class Said:
    """What is said of which clip: numbers of clips and of forms, and int64 [P] of the pairs, sorted."""

    clip: dict[str, int]
    form_of: dict[str, int]  # of a caption_id
    pairs: np.ndarray
    doubtful: frozenset[str]  # captions whose form is said of several clips, and those clips

    def joins(self, clips: np.ndarray, captions: np.ndarray) -> np.ndarray:
        """bool [R]: is this caption, or a near-duplicate, said of this clip? Ids as strings [R]."""
        code = np.array([self.clip.get(c, -1) for c in clips], dtype=np.int64) * len(self.form_of)
        code += np.array([self.form_of.get(c, -1) for c in captions], dtype=np.int64)
        spot = np.searchsorted(self.pairs, code).clip(max=len(self.pairs) - 1)
        return self.pairs[spot] == code if len(self.pairs) else np.zeros(len(code), dtype=bool)


def said(manifest: Artifact) -> Said:
    """The captions of a manifest that belong to one clip, compared by form within their language and length."""
    every = schemas.read(manifest.path / "captions.parquet", schemas.CAPTIONS).to_pylist()
    rows = [r for r in every if r["clip_id"]]
    clips: dict[str, int] = {}
    forms: dict[tuple[str, ...], int] = {}
    of: dict[str, int] = {}
    for r in rows:
        clips.setdefault(r["clip_id"], len(clips))
        key = (r["language"], r["text_class"], form(r["caption"], r["language"]))
        of[r["caption_id"]] = forms.setdefault(key, len(forms))
    pairs = np.unique(np.array([clips[r["clip_id"]] * len(of) + of[r["caption_id"]] for r in rows], dtype=np.int64))
    number, times = np.unique(pairs % max(1, len(of)), return_counts=True)
    shared = set(number[times > 1].tolist())
    doubtful = {name for r in rows if of[r["caption_id"]] in shared for name in (r["caption_id"], r["clip_id"])}
    return Said(clips, of, pairs, frozenset(doubtful))


def adjusted(table: pa.Table, best: np.ndarray, direction: str, known: Said) -> np.ndarray:
    """Rank of each query's best candidate that is right by the rule: int64 [Q], never above the plain one.

    At equal score a wrong candidate goes first, as everywhere.

    Args:
        table: rows of SCORES of one head, language, length and direction, sorted by query.
        best: int64 [Q], plain best ranks, queries in the same order.
        direction: t2v or v2t.
        known: of the manifest.
    """
    query, candidate = (np.array(table.column(n).to_pylist(), dtype=object) for n in ("query_id", "candidate_id"))
    right = known.joins(candidate, query) if direction == "t2v" else known.joins(query, candidate)
    score = table.column("score").to_numpy()
    start = np.flatnonzero(np.append(True, query[1:] != query[:-1]))
    where = np.cumsum(np.append(0, query[1:] != query[:-1]))  # [R], number of the query
    top = np.maximum.reduceat(np.where(right, score, -np.inf), start)  # [Q]
    ahead = np.add.reduceat(~right & (score >= top[where]), start)
    out: np.ndarray = np.minimum(best, np.where(np.isfinite(top), ahead + 1, best))
    return out
