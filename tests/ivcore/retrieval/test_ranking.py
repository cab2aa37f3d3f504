"""Ranks against the obvious version, the tie rule, the memory bound, bad input."""

import doctest

import numpy as np
import pytest
import torch

from ivcore.errors import WorkError
from ivcore.retrieval import heads, ranking, stats
from ivcore.retrieval import rerank as rerank_module
from ivcore.retrieval.ranking import compute, grades, rank, ranks


@pytest.mark.parametrize("module", [ranking, stats, rerank_module, heads])
def test_doctests(module):
    result = doctest.testmod(module, extraglobs={"np": np, "torch": torch}, optionflags=doctest.ELLIPSIS)
    assert result.attempted and not result.failed


def obvious(scores: np.ndarray, true: list[set[int]]) -> list[list[int]]:
    """Candidates of each query in order: score down, wrong before true, then manifest order."""
    return [sorted(range(len(row)), key=lambda c: (-row[c], c in mine, c)) for row, mine in zip(scores, true)]


@pytest.mark.parametrize("levels", [2, 5, 10_000])  # many ties, some, hardly any
@pytest.mark.parametrize("bound", [1, 40, 10_000])
def test_equals_the_obvious_version(levels, bound):
    rng = np.random.default_rng(levels)
    scores = rng.integers(0, levels, (23, 17)).astype(np.float32)
    true = [set(rng.choice(17, rng.integers(1, 4), replace=False).tolist()) for _ in scores]
    pairs = np.array([(q, c) for q, mine in enumerate(true) for c in sorted(mine)])
    seen = []

    def score_of(a: int, b: int) -> torch.Tensor:
        seen.append((b - a) * 17)
        return torch.from_numpy(scores[a:b])

    found = rank(score_of, 17, pairs, k=6, max_elements=bound)
    order = obvious(scores, true)
    assert found.top.tolist() == [o[:6] for o in order]
    assert found.pair_rank.tolist() == [order[q].index(c) + 1 for q, c in pairs]
    assert found.best.tolist() == [min(o.index(c) + 1 for c in mine) for o, mine in zip(order, true)]
    assert np.array_equal(found.top_score, np.take_along_axis(scores, found.top, 1))
    assert max(seen) <= max(bound, 17)


def test_grades_equal_the_obvious_version():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 9, (31, 40)).astype(np.float32)
    true = [set(rng.choice(40, rng.integers(1, 15), replace=False).tolist()) for _ in scores]
    pairs = np.array([(q, c) for q, mine in enumerate(true) for c in sorted(mine)])
    precision, gain = [], []
    for order, mine in zip(obvious(scores, true), true):
        hits = [c in mine for c in order]
        precision.append(np.mean([sum(hits[: n + 1]) / (n + 1) for n, hit in enumerate(hits) if hit]))
        discount = 1 / np.log2(np.arange(10) + 2)
        gain.append((hits[:10] * discount).sum() / (sorted(hits, reverse=True)[:10] * discount).sum())
    found = rank(lambda a, b: torch.from_numpy(scores[a:b]), 40, pairs, k=5)
    assert np.allclose(grades(pairs[:, 0], found.pair_rank), (precision, gain))


def test_a_thousand_queries_against_the_obvious_version():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(1000, 1000)).astype(np.float32)
    scores[:, ::3] = scores[:, ::3].round(1)  # ties
    found = ranks(torch.from_numpy(scores), np.arange(1000))
    own = scores.diagonal()[:, None]
    assert np.array_equal(found, (scores >= own).sum(axis=1))  # level with the true one counts as ahead


def test_a_constant_head_is_last_not_first():
    assert ranks(torch.zeros(3, 50), torch.tensor([0, 7, 49])).tolist() == [50, 50, 50]


def test_compute_edges():
    assert compute(np.array([1]))["mrr"] == 100.0
    with pytest.raises(ValueError, match="start at 1"):
        compute(np.array([0, 1]))


@pytest.mark.parametrize(
    "pairs, words",
    [
        ([(0, 0), (2, 1)], "every query"),
        ([(1, 0), (0, 0)], "sorted"),
        ([(0, 9)], "0 to 2"),
        ([(0, 1), (0, 1)], "twice"),
    ],
)
def test_bad_pairs_are_refused(pairs, words):
    with pytest.raises(ValueError, match=words):
        rank(lambda a, b: torch.zeros(b - a, 3), 3, np.array(pairs), k=1)


def test_not_a_number_is_an_error():
    with pytest.raises(WorkError, match="not numbers"):
        ranks(torch.tensor([[float("nan"), 1.0]]), torch.tensor([1]))
