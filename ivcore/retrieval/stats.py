"""How sure a recall or a difference is: sign flips by family of clips, Student's t over families and over runs.

Shapes: Q queries, G families, R training runs.

Clips of one family are near-twins, so their queries succeed and fail together; a seed is another training run, and all
its queries move together. So neither single queries nor seeds times queries are counted: a difference is clear when the
families say so by an exact test, and, with several seeds, the runs as well. With one seed the answer is about these
trained weights: how far another run would move it is not known. `docs/trust.md` has what was simulated.
Values are 0-1 or differences of them; answers percent.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.fft import fft, next_fast_len
from scipy.optimize import brentq
from scipy.special import betaincinv, stdtrit

LEVEL = 0.95
FEW = 6  # families at least: the smallest p of five is 2 / 2**5, above 5 %, whatever they say
NORMAL = 1.960
# The smallest difference that a two-sided 5 % test finds in four cases of five is DETECTABLE standard errors of the
# difference: normal quantiles 1.960 + 0.842.
DETECTABLE = 2.802


@dataclass(frozen=True)
class Interval:
    """A mean and its 95 % interval, percent; `sd` is the standard error, `clusters` the families it rests on."""

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
    """A minus B on the same queries, percentage points; the interval leaves 0 out exactly when `p` is 0.05 or less.

    smallest: what would have been seen four times in five. only_a, only_b: queries on which one was ahead.
    """

    delta: float
    low: float
    high: float
    p: float
    smallest: float
    only_a: int
    only_b: int
    n: int
    clusters: int
    runs: int

    @property
    def is_clear(self) -> bool:
        """Whether this is told from chance."""
        return self.p <= 1 - LEVEL

    @property
    def too_few(self) -> bool:
        """Whether no outcome of so few families could have been told from chance."""
        return self.clusters < FEW

    def ci(self) -> list[float]:
        """[low, high]."""
        return [self.low, self.high]


@dataclass(frozen=True)
class _Spread:
    """A mean of families, and of runs where there are several: standard errors and degrees of freedom of both."""

    mean: float
    sums: np.ndarray  # [G]
    sizes: np.ndarray  # [G]
    runs: int
    sd_runs: float

    @property
    def df(self) -> float:
        """Degrees of freedom: families as many as equal ones would be worth (Kish), less one."""
        return max(1.0, float(self.sizes.sum() ** 2 / (self.sizes**2).sum()) - 1)

    def sd(self, added: float = 0.0) -> float:
        """Standard error from family to family; `added`: size of one more family in favour of each side, or none."""
        groups, queries = len(self.sizes), float(self.sizes.sum())
        squares = float(((self.sums - self.mean * self.sizes) ** 2).sum()) + 2 * added**2
        if added:
            groups, queries = groups + 2, queries * (groups + 2) / groups
        return float(np.sqrt(groups / (groups - 1) * squares)) / queries


def interval(correct: np.ndarray, family: np.ndarray, run: np.ndarray | None = None) -> Interval:
    """Share of correct queries with its interval (Korn and Graubard: exact binomial of as many trials as it is worth).

    A share is worth the independent trials that would vary as much as its families do, fewer where the families are
    few. Where no family differs (all right, all wrong) it is worth one trial a family, so it is never certain.

    Args:
        correct: bool [Q].
        family: [Q], what each query belongs to.
        run: [Q], the training run that answered; None: one run.

    >>> interval(np.array([True] * 4), np.array(["a", "a", "b", "b"])).ci()[1]
    100.0
    """
    found = _spread(np.asarray(correct, dtype=np.float64), family, run)
    share, groups = found.mean, len(found.sizes)
    low, high = _binomial(share, _trials(found)) if groups > 1 or share in (0, 1) else (0.0, 1.0)
    if found.runs > 1:
        between = _quantile(found.runs - 1, 1 - LEVEL) * found.sd_runs
        low = max(0.0, share - float(np.hypot(share - low, between)))
        high = min(1.0, share + float(np.hypot(high - share, between)))
    return Interval(100 * share, 100 * low, 100 * high, 100 * (high - low) / (2 * NORMAL), groups)


def difference(a: np.ndarray, b: np.ndarray, family: np.ndarray, run: np.ndarray | None = None) -> Difference:
    """Mean of A minus B, both asked the same queries, and whether it is told from chance.

    `p` is the larger of two: the exact sign-flip test by family (with one query a family: McNemar's), and Student's t
    of the interval. The interval's half is `hypot` of the halves over families and over runs, which never covers less
    than it says (Banerjee). To the families two are added for its width, one in favour of each side, as large as those
    that differ: a few that differ, or none, are no proof of the rest.

    Args:
        a: bool [Q], whether A was right; or int, any count.
        b: the same of B, same order.
        family: [Q]; families of different data sets need different names.
        run: [Q], the training run that answered; None: one run.

    Raises:
        ValueError: if the two were not asked equally many queries.
    """
    if not len(a) == len(b) == len(family):
        raise ValueError(f"A, B and families are one each a query, got {len(a)}, {len(b)}, {len(family)}")
    values = np.asarray(a, dtype=np.int64) - np.asarray(b, dtype=np.int64)
    found = _spread(values, family, run)
    delta, groups, most = found.mean, len(found.sizes), max(1.0, float(np.abs(values).max()))
    counts = (int((values > 0).sum()), int((values < 0).sum()), len(values), groups, found.runs)
    if groups == 1:
        return Difference(100 * delta, -100 * most, 100 * most, 1.0, 100 * most, *counts)
    differing = found.sums[found.sums != 0]
    sd = found.sd(float(np.sqrt(np.mean(differing**2))) if len(differing) else float(found.sizes.mean()))

    def half(level: float) -> float:
        between = _quantile(found.runs - 1, level) * found.sd_runs if found.runs > 1 else 0.0
        return float(np.hypot(_quantile(found.df, level) * sd, between))

    p = max(sign_flips(found.sums), _level_at(half, abs(delta)))
    width = half(1 - LEVEL)
    low, high = max(-most, delta - width), min(most, delta + width)
    if p > 1 - LEVEL:
        low, high = min(low, 0.0), max(high, 0.0)
    smallest = most if groups < FEW else min(most, width * DETECTABLE / NORMAL)
    return Difference(100 * delta, 100 * low, 100 * high, p, 100 * smallest, *counts)


def sign_flips(sums: np.ndarray) -> float:
    """Exact two-sided p: how often the total is at least as far from 0 when each family's sign is a coin's.

    Where A and B are alike either could have had the other's answers, family by family. With one query a family this is
    McNemar's exact test. All 2**G flips are counted at once: the distribution of the total is a product of cosines,
    read back by Fourier.

    Args:
        sums: int [G], what A was ahead of B in each family.

    >>> sign_flips(np.array([1] * 8 + [-1]))  # 2 * (1 + 9) / 2**9
    0.0390625
    """
    each = np.rint(sums).astype(np.int64)
    total, (sizes, times) = abs(int(each.sum())), np.unique(np.abs(each[each != 0]), return_counts=True)
    if not total:
        return 1.0
    length = next_fast_len(2 * int((sizes * times).sum()) + 1)
    angle = 2 * np.pi / length * np.arange(length)
    wave = np.ones(length)
    for size, num in zip(sizes, times):
        wave *= np.cos(size * angle) ** num
    share = fft(wave).real / length  # [total], of the flips
    nearer = share[0] + 2 * share[1:total].sum()
    return float(np.clip(round(1 - nearer, 13), 2.0 ** (1 - int(times.sum())), 1))


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
    half = _quantile(len(values) - 1, 1 - LEVEL) * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return [float(np.mean(values)) - half, float(np.mean(values)) + half]


def _spread(values: np.ndarray, family: np.ndarray, run: np.ndarray | None) -> _Spread:
    """Sums of families and the mean of every run, of `values` [Q]."""
    if not len(values):
        raise ValueError("there are no queries")
    sums, sizes = _sums(values, family)
    runs, sd = 1, 0.0
    if run is not None:
        of, num = _sums(values, run)
        runs = len(of)
        sd = float(np.std(of / num, ddof=1)) / runs**0.5 if runs > 1 else 0.0
    return _Spread(float(values.mean()), sums, sizes, runs, sd)


def _sums(values: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the values of each group."""
    _, where = np.unique(np.asarray(of), return_inverse=True)
    return np.bincount(where, values), np.bincount(where).astype(np.float64)


def _trials(found: _Spread) -> float:
    """Independent trials that a share is worth; never more than its queries."""
    if found.mean in (0, 1):
        return found.df + 1 if len(found.sizes) > 1 else 1.0
    sd, queries = found.sd(), float(found.sizes.sum())
    worth = min(queries, found.mean * (1 - found.mean) / sd**2) if sd else queries
    return worth * (NORMAL / _quantile(found.df, 1 - LEVEL)) ** 2


def _binomial(share: float, trials: float) -> tuple[float, float]:
    """Clopper-Pearson of any number of trials."""
    right, tail = share * trials, (1 - LEVEL) / 2
    low = float(betaincinv(right, trials - right + 1, tail)) if share > 0 else 0.0
    return low, float(betaincinv(right + 1, trials - right, 1 - tail)) if share < 1 else 1.0


def _quantile(df: float, level: float) -> float:
    """What |t| passes with probability `level`."""
    return -float(stdtrit(df, level / 2))


def _level_at(half: Callable[[float], float], delta: float) -> float:
    """The level at which an interval of this half just reaches 0."""
    if not delta:
        return 1.0
    tiny = 1e-20
    return (
        tiny if half(tiny) < delta else float(np.exp(brentq(lambda x: half(float(np.exp(x))) - delta, np.log(tiny), 0)))
    )
