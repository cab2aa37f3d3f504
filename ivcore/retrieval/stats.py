"""How sure a recall or a difference is: bootstrap by family of clips, exact McNemar, smallest detectable difference.

Shapes: Q queries, G families (clusters), B bootstrap samples.

Clips of one family are near-twins, so their queries succeed and fail together; drawing single queries would promise
more certainty than there is. Whole families are drawn instead. Values are 0-1 or differences of them; answers percent.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, t

LEVEL = 0.95
MAX_COUNTS = 2_000_000  # draws held at once
# The smallest difference that a two-sided 5 % test finds in four cases of five is DETECTABLE standard errors of the
# difference: normal quantiles 1.960 + 0.842.
DETECTABLE = 2.802


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval, percent; `sd` is the standard error, `clusters` what it rests on."""

    mean: float
    low: float
    high: float
    sd: float
    clusters: int

    def ci(self) -> list[float]:
        """[low, high]."""
        return [self.low, self.high]


@dataclass(frozen=True)
class Difference:
    """A minus B on the same queries, percentage points; `p` is McNemar's, `smallest` what would have been detected."""

    delta: float
    low: float
    high: float
    p: float
    smallest: float
    only_a: int
    only_b: int
    n: int
    clusters: int

    @property
    def is_clear(self) -> bool:
        """The interval leaves 0 out."""
        return self.low > 0 or self.high < 0


def interval(correct: np.ndarray, family: np.ndarray, samples: int = 2000, seed: int = 0) -> Interval:
    """Share of correct queries with its interval, families drawn with replacement.

    Where no family differs from another (all right, all wrong, or a single family) drawing them again says nothing;
    the exact binomial interval of as many trials as there are families is given instead, and it is never empty.

    Args:
        correct: bool [Q].
        family: [Q], what each query belongs to.
        samples: B.
        seed: of the draws.

    >>> interval(np.array([True] * 4), np.array(["a", "a", "b", "b"])).ci()[1]
    100.0
    """
    correct = np.asarray(correct, dtype=np.float64)
    drawn, groups = _draw(correct, family, samples, seed)
    mean = float(correct.mean())
    low, high = _percentiles(drawn)
    if groups == 1 or low == high:
        low, high = _exact(mean, groups)
    return Interval(100 * mean, 100 * low, 100 * high, 100 * float(drawn.std()), groups)


def difference(a: np.ndarray, b: np.ndarray, family: np.ndarray, samples: int = 2000, seed: int = 0) -> Difference:
    """Difference of the shares of correct queries, A minus B, both asked the same queries.

    Args:
        a: bool [Q], whether A was right.
        b: bool [Q], whether B was, same order.
        family: [Q]; families of different data sets need different names.
        samples: B.
        seed: of the draws.

    Raises:
        ValueError: if the two were not asked equally many queries.
    """
    if not len(a) == len(b) == len(family):
        raise ValueError(f"A, B and families are one each a query, got {len(a)}, {len(b)}, {len(family)}")
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    drawn, groups = _draw(a.astype(np.float64) - b, family, samples, seed)
    low, high = _percentiles(drawn)
    delta = float(a.mean() - b.mean())
    reach = DETECTABLE * float(drawn.std())
    if groups == 1:
        low, high, reach = -1.0, 1.0, 1.0
    elif low == high:  # they never disagree, or in every family alike: at most this share of families does otherwise
        most = _exact(0.0, groups)[1]
        low, high, reach = max(-1.0, delta - most), min(1.0, delta + most), most
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    p = mcnemar(only_a, only_b)
    return Difference(100 * delta, 100 * low, 100 * high, p, 100 * reach, only_a, only_b, len(a), groups)


def mean(values: np.ndarray, family: np.ndarray, samples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of any number a query and its 95 % interval, by bootstrap of families; in percent.

    Args:
        values: float [Q], such as a difference of differences (-2 to 2).
        family: [Q]; families of different data sets need different names.
        samples: B.
        seed: of the draws.
    """
    drawn, _ = _draw(np.asarray(values, dtype=np.float64), family, samples, seed)
    low, high = _percentiles(drawn)
    return 100 * float(np.mean(values)), 100 * low, 100 * high


def smallest_paired(num: int, discordant: float) -> float:
    """Smallest difference, percentage points, that `num` independent queries asked of both would show.

    DETECTABLE * sqrt(discordant / num): the standard error when the two disagree on that share of the queries and the
    difference itself is small beside it. Families of near-twins need more; `Difference.smallest` is measured on them.

    >>> round(smallest_paired(1000, 0.2), 1)
    4.0
    """
    return 100 * DETECTABLE * float(np.sqrt(discordant / num))


def smallest_unpaired(one: Interval) -> float:
    """Smallest difference to another system of the same spread, asked other queries: DETECTABLE * sqrt(2) * its sd."""
    return DETECTABLE * float(np.sqrt(2)) * one.sd


def over_seeds(values: Sequence[float]) -> list[float] | None:
    """95 % interval of the mean over training runs (Student's t); None of a single run, which says nothing of others.

    >>> [round(v, 2) for v in over_seeds([50.0, 52.0, 54.0])]
    [47.03, 56.97]
    """
    if len(values) < 2:
        return None
    half = float(t.ppf((1 + LEVEL) / 2, len(values) - 1)) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return [float(np.mean(values)) - half, float(np.mean(values)) + half]


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test: of the queries on which the two disagree, is half won by each?

    It takes queries for independent, so with families of near-twins it is too sure; the interval is what decides.

    >>> mcnemar(8, 1)  # 2 * (1 + 9) / 2**9
    0.0390625
    """
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue) if only_a + only_b else 1.0


def _draw(values: np.ndarray, family: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, int]:
    """Means of `values` [Q] over families drawn with replacement: ([B], number of families)."""
    if not len(values):
        raise ValueError("there are no queries")
    _, where = np.unique(np.asarray(family), return_inverse=True)
    groups = int(where.max()) + 1
    sums, sizes = np.bincount(where, values, groups), np.bincount(where, minlength=groups).astype(np.float64)
    if samples * groups <= MAX_COUNTS:
        blocks = [_counts(groups, samples, seed)]
    else:
        rng, step = np.random.default_rng(seed), max(1, MAX_COUNTS // groups)
        sizes_of = [min(step, samples - first) for first in range(0, samples, step)]
        blocks = (rng.multinomial(groups, np.full(groups, 1 / groups), size=b) for b in sizes_of)  # type: ignore[assignment]
    return np.concatenate([(counts @ sums) / (counts @ sizes) for counts in blocks]), groups


@functools.lru_cache(maxsize=4)
def _counts(groups: int, samples: int, seed: int) -> np.ndarray:
    """How often each family is drawn in each sample, float64 [B, G]; the same for every table of as many families."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=samples).astype(np.float64)


def _percentiles(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _exact(mean: float, groups: int) -> tuple[float, float]:
    """Clopper-Pearson with one trial a family; a single family that is neither all right nor all wrong says nothing."""
    if groups == 1 and 0 < mean < 1:
        return 0.0, 1.0
    ci = binomtest(round(mean * groups), groups).proportion_ci(LEVEL, "exact")
    return float(ci.low), float(ci.high)
