"""Intervals at the edges, a known answer, coverage on simulated families."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ivcore.retrieval import stats
from ivcore.retrieval.stats import difference, interval, mcnemar

quick = settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def families(num: int, size: int = 4) -> np.ndarray:
    return np.arange(num).repeat(size)


@pytest.mark.parametrize("correct", [True, False])
def test_all_alike_is_not_certainty(correct):
    found = interval(np.full(40, correct), families(10))
    # exact binomial of 10 families: 1 - 0.025 ** (1 / 10)
    assert found.ci() == pytest.approx([69.15, 100.0] if correct else [0.0, 30.85], abs=0.01)
    assert interval(np.full(160, correct), families(10, 16)).ci() == found.ci()  # more twins are no more evidence


def test_one_family_says_nothing():
    assert interval(np.array([True, False]), np.zeros(2)).ci() == [0.0, 100.0]
    found = difference(np.array([True, True]), np.array([False, False]), np.zeros(2))
    assert (found.low, found.high, found.smallest) == (-100.0, 100.0, 100.0) and not found.is_clear


def test_a_family_of_its_own_each_is_the_usual_interval():
    correct = np.arange(400) % 4 < 3  # 75 %
    found = interval(correct, np.arange(400))
    half = 1.96 * 100 * np.sqrt(0.75 * 0.25 / 400)
    assert found.ci() == pytest.approx([75 - half, 75 + half], abs=0.6)
    assert found.sd == pytest.approx(half / 1.96, rel=0.05)


def test_twins_widen_the_interval_by_the_root_of_their_number():
    correct = np.random.default_rng(0).random(200) < 0.5
    one = interval(correct, np.arange(200))
    four = interval(correct.repeat(4), families(200))
    assert four.sd == pytest.approx(one.sd, rel=0.05)


def test_difference_known_answer():
    a, b = np.zeros(100, bool), np.zeros(100, bool)
    a[:8], b[8:9] = True, True  # 8 only A, 1 only B
    found = difference(a, b, np.arange(100))
    assert (found.delta, found.only_a, found.only_b) == (pytest.approx(7.0), 8, 1)
    assert found.p == pytest.approx(0.0390625)
    assert found.is_clear and 0 < found.low < 7 < found.high
    assert found.smallest == pytest.approx(2.802 * 100 * np.sqrt((0.09 - 0.07**2) / 100), rel=0.06)


def test_never_disagreeing_is_no_proof_of_being_equal():
    same = np.arange(60) % 2 == 0
    found = difference(same, same, families(15))
    assert found.low == -found.high < 0 and found.p == 1.0 and not found.is_clear and found.smallest > 5


def test_same_seed_same_interval():
    correct = np.random.default_rng(1).random(80) < 0.3
    assert interval(correct, families(20), seed=3) == interval(correct, families(20), seed=3)
    assert interval(correct, families(20), seed=3) != interval(correct, families(20), seed=4)


def test_mcnemar_edges():
    assert mcnemar(0, 0) == 1.0 and mcnemar(3, 3) == 1.0 and mcnemar(5, 0) == pytest.approx(2 / 32)


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="one each"):
        difference(np.ones(3), np.ones(4), np.ones(3))
    with pytest.raises(ValueError, match="no queries"):
        interval(np.ones(0), np.ones(0))


def test_coverage_with_correlated_families():
    rng = np.random.default_rng(5)
    hits = plain_hits = 0
    for trial in range(300):
        p = rng.beta(2, 2, 60).repeat(4)  # families differ in difficulty; the true share is 0.5
        correct = rng.random(240) < p
        low, high = interval(correct, families(60), 400, trial).ci()
        hits += low <= 50 <= high
        low, high = interval(correct, np.arange(240), 400, trial).ci()
        plain_hits += low <= 50 <= high
    assert 0.91 <= hits / 300 <= 0.98
    assert plain_hits < hits  # drawing single queries promises too much


def test_coverage_of_a_difference_with_correlated_families():
    rng = np.random.default_rng(6)
    hits = 0
    for trial in range(300):
        p = rng.beta(2, 2, 60).repeat(4)
        a, b = rng.random(240) < p, rng.random(240) < 0.8 * p  # expected difference 10 points
        found = difference(a, b, families(60), 400, trial)
        hits += found.low <= 10 <= found.high
    assert 0.91 <= hits / 300 <= 0.98


@quick
@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_the_binomial_test_of_the_disagreements(only_a, only_b):
    n, k = only_a + only_b, min(only_a, only_b)
    by_hand = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    assert mcnemar(only_a, only_b) == pytest.approx(by_hand, rel=1e-9)
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a)


@quick
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_any_outcome_has_an_ordered_interval_that_holds_its_mean(asked):
    a, b, family = (np.array(x) for x in zip(*asked))
    one, both = interval(a, family, 100), difference(a, b, family, 100)
    assert 0 <= one.low <= one.mean + 1e-9 and one.mean <= one.high + 1e-9 <= 100 + 1e-6
    assert -100 <= both.low <= both.high <= 100 and 0 < both.p <= 1 and both.smallest > 0
    swapped = difference(b, a, family, 100)
    assert swapped.delta == -both.delta and swapped.p == both.p
    assert swapped.low == pytest.approx(-both.high) and swapped.is_clear == both.is_clear


@pytest.mark.parametrize("correct", [True, False])
def test_one_query(correct):
    found = interval(np.array([correct]), np.zeros(1))
    assert found.ci() == pytest.approx([2.5, 100.0] if correct else [0.0, 97.5])


def test_smallest_difference_is_found_four_times_in_five():
    rng = np.random.default_rng(7)
    wanted, discordant, num = stats.smallest_paired(1000, 0.2) / 100, 0.2, 1000
    seen = 0
    for _ in range(400):
        only_a, only_b, _ = rng.multinomial(num, [(discordant + wanted) / 2, (discordant - wanted) / 2, 1 - discordant])
        d, se = (only_a - only_b) / num, np.sqrt(only_a + only_b - (only_a - only_b) ** 2 / num) / num
        seen += d - 1.96 * se > 0
    assert 0.75 <= seen / 400 <= 0.86


def test_seeds_are_few():
    assert stats.over_seeds([5.0]) is None
    rng = np.random.default_rng(8)
    made = rng.normal(50, 2, (400, 3))
    found = np.array([stats.over_seeds(x) for x in made])
    assert 0.92 <= ((found[:, 0] <= 50) & (found[:, 1] >= 50)).mean() <= 0.98
