"""The curve over k from one table of scores, against ranks counted by hand."""

import numpy as np
import pyarrow as pa

from ivcore.verdict.k_curve import NOWHERE, _ranks


def tables(logits, true):
    """One query with candidates in the order of similarity."""
    names = [f"v{n}" for n in range(len(logits))]
    both = {"query_id": ["q"] * len(logits), "candidate_id": names}
    rank = list(range(1, len(logits) + 1))
    return pa.table({**both, "rank": rank, "relevant": true}), pa.table({**both, "score": logits})


def test_ranks_at_every_k():
    names, at = _ranks(*tables([1.0, 3.0, 5.0, 2.0], [False, False, False, True]), 4)
    assert names.tolist() == ["q"]
    assert {k: rank.tolist() for k, rank in at.items()} == {1: [NOWHERE], 2: [NOWHERE], 4: [3]}


def test_a_wrong_candidate_of_the_same_score_stands_before_a_true_one():
    """The tie rule of every other rank: a head that says the same of all is not flattered."""
    _, at = _ranks(*tables([2.0, 2.0, 2.0, 1.0], [True, False, False, False]), 4)
    assert {k: rank.tolist() for k, rank in at.items()} == {1: [1], 2: [2], 4: [3]}
    _, at = _ranks(*tables([2.0, 2.0], [True, True]), 2)
    assert at[2].tolist() == [1]  # what is true does not stand in its own way


def test_the_best_of_several_true_ones_counts():
    draw = np.random.default_rng(0)
    logits, true = draw.integers(0, 4, 8).astype(float), draw.random(8) < 0.4
    _, at = _ranks(*tables(logits.tolist(), true.tolist()), 8)
    for k, rank in at.items():
        seen = [(logit, good) for logit, good in zip(logits[:k], true[:k])]
        best = max((logit for logit, good in seen if good), default=None)
        expected = NOWHERE if best is None else 1 + sum(logit >= best for logit, good in seen if not good)
        assert rank.tolist() == [expected]
