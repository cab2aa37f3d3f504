"""What matching adds to the similarity it re-ranks, arm against arm: does the gain hang on who saw the hard negatives?

A gain is R@1 of s2/match minus R@1 of s2/sim on the same queries; what is told here is one arm's gain minus another's.
"""

import itertools
from typing import Any

import numpy as np

from ivcore.retrieval import stats
from ivcore.verdict.lineage import Scored, matching_stands
from ivcore.verdict.tables import DIRECTIONS, Outcomes, Place, pool

MATCH, SIM = ("s2", "match"), ("s2", "sim")


def between_arms(runs: list[Scored], found: Outcomes) -> list[dict[str, Any]]:
    """One row a pair of arms, language, class and direction, over the seeds both have.

    Arms whose text tower moved after matching was last trained are left out: their matching reads states it never saw.
    """
    arms = list(dict.fromkeys(run.arm for run in runs if run.model == "s2" and matching_stands(run)))
    places = list(dict.fromkeys(place for *_, place in found))
    rows = [_row(found, one, two, place) for one, two in itertools.combinations(arms, 2) for place in places]
    return [row for row in rows if row]


def _row(found: Outcomes, one: str, two: str, place: Place) -> dict[str, Any]:
    """Gain of arm `two` minus gain of arm `one`; empty when they were not asked the same queries."""
    seeds = [s for arm, s, head, p in found if (arm, head, p) == (one, MATCH, place)]
    keys = [[(arm, s, head, place) for arm in (one, two) for head in (MATCH, SIM)] for s in seeds]
    if not keys or any(key not in found for some in keys for key in some):
        return {}
    first = [[found[key] for key in some] for some in keys]  # a seed: match and sim of one arm, then of the other
    if any(not np.array_equal(o.query, some[0].query) for some in first for o in some):
        return {}
    sides = [(some[:2], some[2:]) for some in first]
    gain = [[(m.rank == 1) - (s.rank == 1).astype(int) for m, s in side] for side in sides]  # [seed][arm] -> [Q]
    runs = pool([some[0] for some in first])
    one_gain, two_gain = (np.concatenate(each) for each in zip(*gain))
    d = stats.difference(two_gain, one_gain, runs.family, runs.run)
    language, text_class, direction = place
    assert direction in DIRECTIONS
    return {
        "arm": one,
        "arm_b": two,
        "seeds": seeds,
        "language": language,
        "text_class": text_class,
        "direction": direction,
        "gain": round(100 * float(np.mean([a.mean() for a, _ in gain])), 4),
        "gain_b": round(100 * float(np.mean([b.mean() for _, b in gain])), 4),
        "delta": round(d.delta, 4),
        "ci95": [round(v, 4) for v in d.ci()],
        "is_clear": d.is_clear,
        "too_few": d.too_few,
        "by_seed": [round(100 * float((b - a).mean()), 4) for a, b in gain],
    }
