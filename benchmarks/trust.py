"""The tables of docs/trust.md, `python -m benchmarks.trust [TRIALS]`: how often a verdict is sure where nothing is.

Shapes: N trials, R runs, G families. Two models of one recipe answer the same queries; families differ in difficulty
and in which model suits them; every run moves each model's recall. What is called a difference is so by chance.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import binomtest

from ivcore.retrieval import stats

FAMILIES = (2, 3, 5, 6, 10, 20, 60, 300, 1000)
CAPTIONS = (1, 4, 20)
TRUE = 0.10  # difference whose coverage is looked at
DESIGNS = (
    (3, 20, False),
    (10, 4, False),
    (20, 20, True),
    (75, 4, False),
    (300, 1, False),
)  # families, captions, unequal
LARGE = 10_000  # queries from which on fewer trials have to do
Rule = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[float, float, bool]]  # low, high, clear


@dataclass(frozen=True)
class Design:
    """How many families and queries, and how alike; `moves`: deviation of a model's recall from run to run, points."""

    families: int
    captions: int = 1  # queries a family; unequal: in the mean, geometric
    runs: int = 1
    moves: float = 0.0
    unequal: bool = False
    own_data: bool = False  # each run has test families of its own; else all share them
    true: float = 0.0  # A minus B, 0-1


@dataclass(frozen=True)
class Rates:
    """Percent of the trials: called a difference; the interval of the difference, of a share, holds the truth."""

    clear: float
    covers: float
    covers_share: float


def trials(design: Design, num: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Whether A and B were right, bool [Q], half of the time in the mean, and `true` apart; family and run, int [Q]."""
    rng, d = np.random.default_rng(seed), design
    sizes = rng.geometric(1 / max(d.captions, 1.5), d.families) if d.unequal else np.full(d.families, d.captions)
    each = (num, d.runs if d.own_data else 1, d.families)
    easy, suits = 0.25 + 0.5 * rng.beta(2, 2, each), np.clip(rng.normal(0, 0.15, each), -0.2, 0.2)
    moved = rng.normal(0, d.moves / 100, (num, d.runs, 2, 1))
    p, q = (np.clip(easy + sign * (suits + d.true) / 2 + moved[:, :, i], 0, 1) for i, sign in ((0, 1), (1, -1)))
    both = (np.minimum(p, q) + p * q) / 2  # half of what makes a query hard is hard for both
    parts = np.stack([p - both, q - both, both, np.clip(1 - p - q + both, 0, 1)], axis=-1)  # [N, R, G, 4]
    counts = rng.multinomial(sizes, parts / parts.sum(-1, keepdims=True))
    name = np.arange(d.runs * d.families).reshape(d.runs, d.families) if d.own_data else np.arange(d.families)[None]
    family = np.repeat(np.broadcast_to(name, (d.runs, d.families)).ravel(), np.tile(sizes, d.runs))
    run = np.repeat(np.arange(d.runs), sizes.sum())
    kinds = np.tile([0, 1, 2, 3], d.runs * d.families)
    for one in counts:
        kind = np.repeat(kinds, one.ravel())
        yield (kind == 0) | (kind == 2), (kind == 1) | (kind == 2), family, run


def now(a: np.ndarray, b: np.ndarray, family: np.ndarray, run: np.ndarray) -> tuple[float, float, bool]:
    """The rule of `ivcore.retrieval.stats`."""
    found = stats.difference(a, b, family, run)
    return found.low, found.high, found.is_clear


def before(a: np.ndarray, b: np.ndarray, family: np.ndarray, run: np.ndarray) -> tuple[float, float, bool]:
    """What it replaced: percentiles of 1,000 bootstrap draws of families, seeds pooled as if they were more clips."""
    values = a.astype(float) - b
    sums, sizes = np.bincount(family, values), np.bincount(family)
    drawn = _drawn(len(sums))
    low, high = 100 * np.quantile((drawn @ sums) / (drawn @ sizes), [0.025, 0.975])
    return low, high, bool(low > 0 or high < 0)


def before_taken(a: np.ndarray, b: np.ndarray, family: np.ndarray, run: np.ndarray) -> tuple[float, float, bool]:
    """`before`, and McNemar's test of single queries: what it took to say "take"."""
    low, high, clear = before(a, b, family, run)
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return low, high, clear and binomtest(only_a, only_a + only_b).pvalue <= 0.05


@functools.lru_cache(maxsize=2)
def _drawn(groups: int) -> np.ndarray:
    return np.random.default_rng(0).multinomial(groups, np.full(groups, 1 / groups), size=1000).astype(float)


def rates(design: Design, rule: Rule = now, num: int = 1000, seed: int = 0) -> Rates:
    """What a rule says of a design, percent of `num` trials."""
    clear = covers = shares = 0
    for a, b, family, run in trials(design, num, seed):
        low, high, said = rule(a, b, family, run)
        share = stats.interval(a, family, run) if rule is now else None
        clear += said
        covers += low <= 100 * design.true <= high
        shares += share is not None and share.low <= 50 + 50 * design.true <= share.high
    return Rates(*(100 * x / num for x in (clear, covers, shares)))


def one_seed(num: int) -> None:
    """Families and captions."""
    print(
        "| families | captions each | before: interval | before: and McNemar | now "
        "| covers 0 | covers 10 points | covers R@1 |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for families in FAMILIES:
        for captions, unequal in ((1, False), (4, False), (20, False), (4, True), (20, True)):
            d = Design(families, captions, unequal=unequal)
            few = num // 4 if families * captions >= LARGE else num
            old, taken, new = (rates(d, rule, few) for rule in (before, before_taken, now))
            far = rates(replace(d, true=TRUE), now, few, seed=1)
            called = "too few" if families < stats.FEW and not new.clear else f"{new.clear:.1f}"
            cells = (
                f"{old.clear:.1f}",
                f"{taken.clear:.1f}",
                called,
                *(f"{x:.1f}" for x in (new.covers, far.covers, new.covers_share)),
            )
            print(f"| {families:,} | {captions}{', unequal' * unequal} | {' | '.join(cells)} |", flush=True)


def seeds(num: int) -> None:
    """Runs that differ: called clear before (with McNemar) > now, by how much a run moves recall."""
    moved = (0.0, 2.0, 4.0, 6.0)
    print(
        f"| seeds | test clips | families x captions | {' | '.join(f'{m:g} points' for m in moved)} | covers at least |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for runs in (1, 2, 3, 5):
        for own_data in (False, True)[: 1 if runs == 1 else 2]:
            for families, captions, unequal in DESIGNS:
                cells, covers = [], []
                for moves in moved:
                    d = Design(families, captions, runs, moves, unequal, own_data)
                    old, new = (rates(d, rule, num) for rule in (before_taken, now))
                    far = rates(replace(d, true=TRUE), now, num, seed=1)
                    cells.append(f"{old.clear:.1f} > {new.clear:.1f}")
                    covers += [new.covers, far.covers, new.covers_share]
                whose = "its own" if own_data else "shared"
                size = f"{families} x {captions}{', unequal' * unequal}"
                told = f"{runs} | {whose} | {size} | {' | '.join(cells)} | {min(covers):.1f}"
                print(f"| {told} |", flush=True)


if __name__ == "__main__":
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    one_seed(number)
    print()
    seeds(number)
