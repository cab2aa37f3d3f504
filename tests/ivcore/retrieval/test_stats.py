"""Intervals and the test at the edges, known answers, the exact test against counting, rates on simulated families."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.trust import Design, before, before_taken, rates
from ivcore.retrieval import stats
from ivcore.retrieval.stats import difference, interval, sign_flips

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
    # two queries more, one for each side, and Student's t of 99 in the place of 1.960
    error = np.sqrt(102 / 101 * (9 - 100 * 0.07**2 + 2)) / 102
    assert found.smallest == pytest.approx(100 * 2.802 * 1.98422 / 1.96 * error, rel=1e-4)


def test_never_disagreeing_is_no_proof_of_being_equal():
    same = np.arange(60) % 2 == 0
    found = difference(same, same, families(15))
    assert found.low == -found.high < 0 and found.p == 1.0 and not found.is_clear and found.smallest > 5


def test_equal_families_that_agree_in_one_direction_are_as_sure_as_their_number():
    for num, p in ((5, 2 / 2**5), (6, 2 / 2**6), (10, 2 / 2**10)):
        found = difference(np.ones(num * 20), np.zeros(num * 20), families(num, 20))
        assert found.p == pytest.approx(max(p, found.p)) and found.is_clear == (p <= 0.05)
        assert found.too_few == (num < 6) and (found.smallest == 100.0) == (num < 6)
        assert (found.low > 0) == found.is_clear  # t alone would leave 0 out for five
    assert sign_flips(np.ones(200)) == 2.0**-199


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="one each"):
        difference(np.ones(3), np.ones(4), np.ones(3))
    with pytest.raises(ValueError, match="no queries"):
        interval(np.ones(0), np.ones(0))


@pytest.mark.parametrize("unequal", [False, True])
@pytest.mark.parametrize("families", [6, 10, 20, 100])
def test_many_captions_a_family_say_no_more_than_families_do(families, unequal):
    design = Design(families, 20, unequal=unequal)
    found, far = rates(design, num=300), rates(Design(families, 20, unequal=unequal, true=0.1), num=300, seed=1)
    assert found.clear <= 7.5 and found.covers >= 92.5 and found.covers_share >= 92.5
    assert far.covers >= 92 and far.covers_share >= 92
    if families == 6 and not unequal:  # what percentiles of the bootstrap called clear
        assert rates(design, before, num=300).clear >= 8


@pytest.mark.parametrize("families", [6, 10, 20, 100])
def test_one_query_a_family_is_covered_by_either_rule(families):
    """The design that hid the fault: discordant single queries are few, and the bootstrap's steps are coarse."""
    found, old = rates(Design(families), num=300), rates(Design(families), before_taken, num=300)
    assert found.clear <= 7.5 and found.covers >= 92.5 and found.covers_share >= 92.5
    assert old.clear <= 7.5


@pytest.mark.parametrize("own_data", [False, True])
@pytest.mark.parametrize("runs", [2, 3, 5])
def test_seeds_are_runs_and_no_more_clips(runs, own_data):
    design = Design(75, 4, runs=runs, moves=4, own_data=own_data)
    found = rates(design, num=300)
    assert found.clear <= 7.5 and found.covers >= 92.5 and found.covers_share >= 92.5
    assert rates(design, before_taken, num=300).clear >= 20  # seeds pooled as more clips


def test_a_run_that_answers_as_another_adds_no_evidence():
    a, b = np.zeros(100, bool), np.zeros(100, bool)
    a[:8], b[8:9] = True, True
    one = difference(a, b, np.arange(100))
    three = difference(np.tile(a, 3), np.tile(b, 3), np.tile(np.arange(100), 3), np.arange(3).repeat(100))
    assert three.p == pytest.approx(one.p) and three.ci() == pytest.approx(one.ci()) and three.runs == 3


def test_the_two_halves_are_added_as_squares():
    family, run = np.tile(np.arange(300), 3), np.arange(3).repeat(300)
    a = np.concatenate([np.arange(300) < n for n in (200, 190, 186)])
    b = np.tile(np.arange(300) < 110, 3)
    both, clips = difference(a, b, family, run), difference(a, b, family)
    runs = stats.over_seeds([30.0, 80 / 3, 76 / 3])
    halves = [(high - low) / 2 for low, high in (both.ci(), clips.ci(), runs)]
    assert halves[0] == pytest.approx(math.hypot(*halves[1:])) and both.is_clear
    share, alone = interval(a, family, run), interval(a, family)
    right = stats.over_seeds([200 / 3, 190 / 3, 62.0])
    half = math.hypot(share.mean - alone.low, (right[1] - right[0]) / 2)
    assert share.mean - share.low == pytest.approx(half)


def test_families_more_alike_than_chance_are_worth_no_more_than_their_queries():
    even = np.tile([True, False], 100)  # each family of 20 half right
    even[:20] = [True] * 11 + [False] * 9  # and one nearly
    alone = interval(even, np.arange(200))
    assert interval(even, families(10, 20)).low < alone.low < alone.high < interval(even, families(10, 20)).high


def test_runs_that_differ_are_not_outvoted_by_clips():
    family, run = np.tile(np.arange(300), 3), np.arange(3).repeat(300)
    a = np.concatenate([np.arange(300) < n for n in (200, 150, 110)])  # +30, +13, 0 points
    b = np.tile(np.arange(300) < 110, 3)
    found = difference(a, b, family, run)
    assert sign_flips(np.bincount(family, a.astype(int) - b)) < 1e-9  # by clips alone there is no doubt
    assert not found.is_clear and found.low < 0 < found.high
    low, high = stats.over_seeds([100 * x.mean() for x in (a.reshape(3, 300) ^ b.reshape(3, 300))])
    assert found.low <= low and found.high >= high


def test_two_families_are_too_few_whatever_they_say():
    found = difference(np.ones(40, bool), np.zeros(40, bool), families(2, 20))
    assert found.too_few and not found.is_clear and found.low <= 0


def test_a_difference_of_differences_goes_the_same_way():
    gain = np.array([2, 1, 1, 1, 1, 2, 1, 1])
    found = difference(gain, np.zeros(8), np.arange(8))
    assert found.delta == 125.0 and found.p == pytest.approx(2 / 2**8) and 0 < found.low < 125 < found.high <= 200


@quick
@given(st.lists(st.integers(-6, 6), min_size=1, max_size=10))
def test_sign_flips_are_every_flip_counted(sums):
    flipped = [abs(sum(s * x for s, x in zip(signs, sums))) for signs in itertools.product((1, -1), repeat=len(sums))]
    assert sign_flips(np.array(sums)) == pytest.approx(np.mean([f >= abs(sum(sums)) for f in flipped]), abs=1e-12)


def test_sign_flips_of_many_unequal_families():
    rng = np.random.default_rng(4)
    sums = rng.integers(-9, 12, 300)
    ways = {0: 1}  # total of the flips -> how many
    for x in np.abs(sums).tolist():
        ways = {t: ways.get(t - x, 0) + ways.get(t + x, 0) for t in {s + d for s in ways for d in (-x, x)}}
    far = sum(n for t, n in ways.items() if abs(t) >= abs(int(sums.sum())))
    assert sign_flips(sums) == pytest.approx(far / 2 ** len(sums), rel=1e-3, abs=1e-12)


@quick
@given(st.integers(0, 400), st.integers(0, 400))
def test_with_one_query_a_family_it_is_mcnemars(only_a, only_b):
    n, k = only_a + only_b, min(only_a, only_b)
    by_hand = min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    sums = np.array([1] * only_a + [-1] * only_b)
    assert sign_flips(sums) == pytest.approx(by_hand, rel=1e-9, abs=1e-12) and sign_flips(sums) == sign_flips(-sums)


@quick
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 5)), min_size=1, max_size=40))
def test_any_outcome_has_an_ordered_interval_that_holds_its_mean(asked):
    a, b, family = (np.array(x) for x in zip(*asked))
    one, both = interval(a, family), difference(a, b, family)
    assert 0 <= one.low <= one.mean + 1e-9 and one.mean <= one.high + 1e-9 <= 100 + 1e-6
    assert -100 <= both.low <= both.high <= 100 and 0 < both.p <= 1 and both.smallest > 0
    assert both.is_clear == (both.low > 0 or both.high < 0) and both.low <= both.delta <= both.high
    swapped = difference(b, a, family)
    assert swapped.delta == -both.delta and swapped.p == both.p
    assert swapped.low == pytest.approx(-both.high) and swapped.is_clear == both.is_clear


@pytest.mark.parametrize("correct", [True, False])
def test_one_query(correct):
    found = interval(np.array([correct]), np.zeros(1))
    assert found.ci() == pytest.approx([2.5, 100.0] if correct else [0.0, 97.5])


def test_seeds_are_few():
    assert stats.over_seeds([5.0]) is None
    rng = np.random.default_rng(8)
    made = rng.normal(50, 2, (400, 3))
    found = np.array([stats.over_seeds(x) for x in made])
    assert 0.92 <= ((found[:, 0] <= 50) & (found[:, 1] >= 50)).mean() <= 0.98


def test_an_interval_holds_its_mean_in_percent_and_its_error_is_that_of_a_normal_one():
    correct = np.arange(40) % 4 < 3
    found = interval(correct, np.arange(40))
    assert found.mean == 75.0 and found.low < 75.0 < found.high and found.clusters == 40
    assert found.sd == pytest.approx((found.high - found.low) / (2 * 1.96), rel=1e-3)


@pytest.mark.parametrize("right", [True, False])
def test_no_interval_over_runs_leaves_the_possible(right):
    """One run of three differs, far enough for the runs alone to reach beyond all or nothing."""
    correct = np.full((3, 20), right)
    correct[0, :10] = not right
    found = interval(correct.ravel(), np.tile(np.arange(20), 3), np.arange(3).repeat(20))
    assert 0.0 <= found.low < found.mean < found.high <= 100.0
    assert (found.high if right else found.low) == (100.0 if right else 0.0)


def test_one_family_of_counts_says_nothing_up_to_the_largest_count():
    found = difference(np.array([4, 0]), np.array([0, 1]), np.zeros(2))
    assert (found.low, found.high, found.smallest, found.p) == (-400.0, 400.0, 400.0, 1.0)
    assert (found.delta, found.only_a, found.only_b, found.n, found.clusters, found.runs) == (150.0, 1, 1, 2, 1, 1)


def test_the_smallest_difference_of_two_systems_asked_other_queries():
    """Errors of both add up in squares; 2.802 of them are seen four times in five."""
    one = stats.Interval(50.0, 46.08, 53.92, 2.0, 100)
    assert stats.smallest_unpaired(one) == pytest.approx(2.802 * math.hypot(2.0, 2.0))
