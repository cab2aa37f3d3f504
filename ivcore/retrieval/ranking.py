"""Ranks of the true candidates, and the figures made from them.

Shapes: Q queries, V candidates, P true pairs (a query may have several), k best candidates kept.

The tie rule: at an equal score a wrong candidate stands before a true one, and among candidates of one kind the one
that comes first in the manifest. A head that gives every candidate the same score therefore ranks last, never first;
with a sort's own order, half precision (where ties are common) or a constant head would be flattered.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ivcore.errors import WorkError

MAX_ELEMENTS = 4_000_000  # scores held at once (16 MB); fixed, so that sums do not depend on the machine
UNSCORED = -100.0  # what a pair gets that the matching head did not look at; upstream's number
ScoreOf = Callable[[int, int], Tensor]  # (first, last + 1) query -> float32 [q, V]


@dataclass(frozen=True)
class Ranked:
    """Where the true candidates stand, and who stands first.

    best: int64 [Q], rank of the best true candidate, from 1.
    pair_rank: int64 [P] and pair_score: float32 [P], of every true pair in the order given.
    top: int64 [Q, k], the best candidates in order, and top_score: float32 [Q, k].
    """

    best: np.ndarray
    pair_rank: np.ndarray
    pair_score: np.ndarray
    top: np.ndarray
    top_score: np.ndarray


def rank(score_of: ScoreOf, num_candidates: int, pairs: np.ndarray, k: int, max_elements: int = MAX_ELEMENTS) -> Ranked:
    """Ranks of all queries; at most `max_elements` scores (or one row) are held at a time.

    Args:
        score_of: scores of a run of queries against all candidates.
        num_candidates: V.
        pairs: int [P, 2], (query, candidate) that belong together, sorted by query; every query has at least one.
        k: how many of the best candidates to keep; no more than V are.

    Raises:
        ValueError: if the pairs are not sorted, leave a query out or name one twice.
        WorkError: if a score is not a number.
    """
    num_queries = _check(pairs, num_candidates)
    k = min(k, num_candidates)
    step = max(1, max_elements // max(1, num_candidates))
    parts = []
    for first in range(0, num_queries, step):
        last = min(first + step, num_queries)
        scores = score_of(first, last).float().cpu()
        if scores.shape != (last - first, num_candidates):
            raise ValueError(f"scores are {list(scores.shape)}, expected {[last - first, num_candidates]}")
        if bool(scores.isnan().any()):
            raise WorkError(f"scores of queries {first} to {last - 1} are not numbers; the checkpoint has diverged")
        low, high = np.searchsorted(pairs[:, 0], [first, last])
        parts.append(_rank_chunk(scores, pairs[low:high] - [first, 0], k))
    pair_rank, pair_score, top, top_score = (np.concatenate(x) for x in zip(*parts))
    best = np.minimum.reduceat(pair_rank, np.searchsorted(pairs[:, 0], np.arange(num_queries)))
    return Ranked(best, pair_rank, pair_score, top, top_score)


def ranks(scores: Tensor, truth: Tensor | np.ndarray) -> np.ndarray:
    """Rank of each query's best true candidate: int64 [Q].

    Args:
        scores: [Q, V], larger is better.
        truth: int [Q], the one true candidate of each query; or bool [Q, V], several.

    >>> equal = torch.tensor([[0.5, 0.9, 0.9]])  # candidates 1 and 2 tie
    >>> ranks(equal, torch.tensor([1])).tolist()  # the wrong one of the two goes first
    [2]
    >>> ranks(equal, torch.tensor([[False, True, True]])).tolist()  # both are true: nobody wrong is level
    [1]
    """
    truth = np.asarray(truth)
    several = np.argwhere(truth) if truth.ndim == 2 else np.stack([np.arange(len(truth)), truth], axis=1)
    return rank(lambda a, b: scores[a:b], scores.shape[1], several, k=1).best


def compute(ranks: np.ndarray) -> dict[str, float]:
    """R@1, R@5, R@10 and mean reciprocal rank (all 0-100), median and mean rank; ranks are int [Q], from 1.

    >>> compute(np.array([1, 2, 6, 12]))
    {'r1': 25.0, 'r5': 50.0, 'r10': 75.0, 'medr': 4.0, 'meanr': 5.25, 'mrr': 43.75}
    """
    if not len(ranks) or ranks.min() < 1:
        raise ValueError(f"ranks start at 1 and there is at least one, got {ranks[:5]}")
    return {
        "r1": 100.0 * float(np.mean(ranks <= 1)),
        "r5": 100.0 * float(np.mean(ranks <= 5)),
        "r10": 100.0 * float(np.mean(ranks <= 10)),
        "medr": float(np.median(ranks)),
        "meanr": float(np.mean(ranks)),
        "mrr": 100.0 * float(np.mean(1.0 / ranks)),
    }


def grades(query: np.ndarray, pair_rank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and nDCG@10 of each query, which count all its true candidates: float64 [Q] each, 0-1.

    Args:
        query: int [P], from 0, of each true pair.
        pair_rank: int [P], where it stands.

    >>> grades(np.array([0, 0]), np.array([1, 4]))  # (1/1 + 2/4) / 2; (1 + 1/log2 5) / (1 + 1/log2 3)
    (array([0.75]), array([0.87721...]))
    """
    order = np.lexsort((pair_rank, query))
    query, place = query[order], pair_rank[order]
    start = np.searchsorted(query, np.arange(query[-1] + 1))
    number = np.arange(len(query)) - start[query] + 1  # 1 for the best true one of a query
    many = np.bincount(query)
    precision = np.bincount(query, number / place) / many
    gain = np.bincount(query, np.where(place <= 10, 1 / np.log2(1 + place), 0))
    most = np.bincount(query, np.where(number <= 10, 1 / np.log2(1 + number), 0))
    return precision, gain / most


def _check(pairs: np.ndarray, num_candidates: int) -> int:
    """Number of queries; ValueError unless the pairs are sorted, whole and distinct."""
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise ValueError(f"pairs are int [P, 2] with P > 0, got {list(pairs.shape)}")
    queries = pairs[:, 0]
    num_queries = int(queries[-1]) + 1
    if (np.diff(queries) < 0).any() or len(np.unique(queries)) != num_queries or queries[0] != 0:
        raise ValueError("pairs are sorted by query, and every query has a true candidate")
    if pairs[:, 1].min() < 0 or pairs[:, 1].max() >= num_candidates:
        raise ValueError(f"true candidates are 0 to {num_candidates - 1}")
    if len(np.unique(pairs, axis=0)) != len(pairs):
        raise ValueError("a true pair is given twice")
    return num_queries


def _rank_chunk(scores: Tensor, pairs: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(pair_rank [p], pair_score [p], top [q, k], top_score [q, k]) of scores [q, V]."""
    query, candidate = torch.from_numpy(pairs[:, 0].copy()), torch.from_numpy(pairs[:, 1].copy())
    mine = scores[query, candidate]  # [p]
    wrong = scores.clone()
    wrong[query, candidate] = float("-inf")
    # One gather of rows a true candidate, and the rows are no more than the chunk unless there are many true ones.
    ahead = torch.cat(
        [
            (wrong[q] >= m[:, None]).sum(dim=1)
            for q, m in zip(query.split(max(1, len(scores))), mine.split(max(1, len(scores))))
        ]
    ).numpy()
    order = np.lexsort((pairs[:, 1], -mine.numpy(), pairs[:, 0]))  # true ones of a query, best first
    place = np.empty(len(pairs), dtype=np.int64)
    place[order] = np.arange(len(pairs)) - np.searchsorted(pairs[order, 0], pairs[order, 0])
    return ahead + place + 1, mine.numpy(), *_top(scores, pairs, k)


def _top(scores: Tensor, pairs: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row in the order of the tie rule: (int64 [q, k], float32 [q, k])."""
    level = scores.topk(k, dim=1).values[:, -1:]  # [q, 1]; whoever ties with the last may be in
    row, candidate = (x.numpy() for x in (scores >= level).nonzero(as_tuple=True))
    value = scores.numpy()[row, candidate]
    is_true = np.isin(row * scores.shape[1] + candidate, pairs[:, 0] * scores.shape[1] + pairs[:, 1])
    order = np.lexsort((candidate, is_true, -value, row))
    start = np.searchsorted(row, np.arange(len(scores)))  # rows come sorted, and lexsort keeps them so
    keep = order[start[:, None] + np.arange(k)]  # [q, k]
    return candidate[keep].astype(np.int64), value[keep]
