"""Tables of the verdict: rows (one run each), spread (over seeds) and paired differences.

Shapes: Q queries of one head, language, class and direction.
"""

import functools
import itertools
import operator
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from ivcore.config import EvalConfig
from ivcore.retrieval import stats
from ivcore.retrieval.ranking import compute, grades
from ivcore.store import schemas
from ivcore.verdict.lineage import Scored, condition, datasets
from ivcore.verdict.near_duplicates import Said, adjusted, said

Place = tuple[str, str, str]  # language, text class, direction
Head = tuple[str, str]  # model, head
HEADS = ("sim", "dsl", "match")
DIRECTIONS = ("t2v", "v2t")
METHOD = "exact sign flips by family of clips and Student's t over families, the larger p"
# Of a query, milliseconds: alone and warm, with cold caches, in batches of 32 (its share), and p50 of each stage.
TIMES = ("p50", "p95", "cold_p50", "cold_p95", "batch32_p50", "batch32_p95", "encode", "similarity", "rerank")
COMPARED: tuple[tuple[Head, Head], ...] = (  # any two of an arm; the first three decide what to take
    (("s2", "match"), ("s2", "sim")),
    (("s2", "match"), ("clip", "sim")),
    (("s2", "sim"), ("clip", "sim")),
    (("s2", "dsl"), ("s2", "sim")),
    (("clip", "dsl"), ("clip", "sim")),
    (("s2", "match"), ("s2", "dsl")),
    (("s2", "dsl"), ("clip", "dsl")),
    (("s2", "match"), ("clip", "dsl")),
    (("s2", "sim"), ("clip", "dsl")),
    (("s2", "dsl"), ("clip", "sim")),
)
# Between arms: a head against itself, and matching against the other arm's contrast: the control for who saw what.
ACROSS: tuple[tuple[Head, Head], ...] = (
    (("s2", "sim"), ("s2", "sim")),
    (("s2", "match"), ("s2", "match")),
    (("clip", "sim"), ("clip", "sim")),
    (("s2", "match"), ("s2", "sim")),
    (("s2", "sim"), ("s2", "match")),
    (("s2", "sim"), ("clip", "sim")),
    (("clip", "sim"), ("s2", "sim")),
    (("s2", "match"), ("clip", "sim")),
    (("clip", "sim"), ("s2", "match")),
)


@dataclass(frozen=True)
class Outcome:
    """Queries in the order of their names: query [Q], best rank int [Q], family [Q] (unique across data sets).

    adjusted: int [Q], rank when near-duplicate captions count as right, and bool [Q], whether the query has any
    (`verdict/near_duplicates.py`). precision, ndcg10: float [Q], average precision and nDCG@10 of all true ones, 0-1.
    offered: int [Q], candidates that the table keeps; of a multiple choice these are the options.
    """

    query: np.ndarray
    rank: np.ndarray
    family: np.ndarray
    adjusted: np.ndarray
    doubtful: np.ndarray
    precision: np.ndarray
    ndcg10: np.ndarray
    offered: np.ndarray


Outcomes = dict[tuple[str, int, Head, Place], Outcome]  # arm, seed, ...


def outcomes(runs: list[Scored], evaluation: EvalConfig) -> Outcomes:
    """What became of every query; languages and classes in the order of the config, heads from cheap to dear."""
    out: Outcomes = {}
    families: dict[str, dict[str, str]] = {}
    captions: dict[str, Said] = {}
    for run in runs:
        manifest = run.input("manifest")
        if manifest.id not in families:
            clips = schemas.read(manifest.path / "manifest.parquet", schemas.MANIFEST, ["clip_id", "family"])
            texts = schemas.read(manifest.path / "captions.parquet", schemas.CAPTIONS, ["caption_id", "clip_id"])
            of = {c: f"{manifest.key}/{f}" for c, f in zip(*(col.to_pylist() for col in clips.columns))}
            # clips and captions are looked up by direction, so equal names would not meet
            of |= {
                f"\t{t}": of.get(c, f"{manifest.key}/{t}") for t, c in zip(*(col.to_pylist() for col in texts.columns))
            }
            families[manifest.id] = of
            captions[manifest.id] = said(manifest)
        of = families[manifest.id]
        order = (HEADS, evaluation.languages, evaluation.text_classes, DIRECTIONS)
        best = _best(run, captions[manifest.id])
        for head, place in sorted(best, key=lambda at: _order((at[0], *at[1]), order)):
            query, rank, loose, (precision, ndcg10), offered = best[head, place]
            mark = "\t" if place[2] == "t2v" else ""
            family = np.array([of[mark + q] for q in query])
            doubtful = np.array([q in captions[manifest.id].doubtful for q in query])
            out[run.arm, run.seed, (run.model, head), place] = Outcome(
                query, rank, family, loose, doubtful, precision, ndcg10, offered
            )
    return out


def _order(names: tuple[str, ...], orders: tuple[tuple[str, ...], ...]) -> list[int]:
    return [order.index(name) for name, order in zip(names, orders)]


def _best(run: Scored, known: Said) -> dict[tuple[str, Place], tuple[Any, ...]]:
    """(queries [Q], ranks [Q], adjusted [Q], (precision [Q], nDCG@10 [Q]), offered [Q]) by head and place, by query."""
    by = ["head", "language", "text_class", "direction"]
    columns = [*by, "query_id", "candidate_id", "rank", "score", "relevant"]
    whole = schemas.read(run.scores.path / "scores.parquet", schemas.SCORES, columns)
    out = {}
    for spot in whole.select(by).group_by(by, use_threads=False).aggregate([]).to_pylist():
        wanted = functools.reduce(operator.and_, (pc.field(name) == value for name, value in spot.items()))
        table = whole.filter(wanted).sort_by("query_id")
        true = table.filter(pc.field("relevant"))
        query, number = np.unique(np.array(true.column("query_id").to_pylist()), return_inverse=True)
        each = true.column("rank").to_numpy()
        rank = np.full(len(query), np.iinfo(each.dtype).max, each.dtype)
        np.minimum.at(rank, number, each)
        offered = np.unique(np.array(table.column("query_id").to_pylist()), return_counts=True)[1]
        found = (query, rank, adjusted(table, rank, spot["direction"], known), grades(number, each), offered)
        out[spot["head"], (spot["language"], spot["text_class"], spot["direction"])] = found
    return out


def rows(runs: list[Scored], found: Outcomes) -> list[dict[str, Any]]:
    """One row an arm, seed, model, head, language, class and direction."""
    out, named = [], datasets(runs)
    for run in runs:
        facts, measured = run.record["facts"], run.record["measured"]
        ms, index = measured.get("query_ms", {}), run.index_ms()
        frames = run.frames.record()["facts"].get("num_frames") if run.frames else None
        costs, trained_on, lengths = run.costs(), run.languages(), run.text_classes()
        for (arm, seed, (model, head), place), outcome in found.items():
            if (arm, seed, model) != (run.arm, run.seed, run.model):
                continue
            name = f"{head}/{'/'.join(place)}"
            figures = compute(outcome.rank) | facts.get("metrics", {}).get(name, {})
            if "task" not in facts:  # retrieval; other tasks bring figures of their own
                figures |= {"map": 100 * outcome.precision.mean(), "ndcg10": 100 * outcome.ndcg10.mean()}
            metrics = {n: round(float(v), 4) for n, v in figures.items()}
            sure, loose = (stats.interval(ranks == 1, outcome.family) for ranks in (outcome.rank, outcome.adjusted))
            out.append(
                {
                    "task": facts.get("task", "retrieval"),
                    "dataset": named[run.input("manifest").id],
                    "n_videos": facts["n_videos"],
                    "chance": round(_chance(facts, place, outcome), 4),
                    **_named(arm, seed, (model, head), place),
                    "size": run.size(),
                    "k": facts["k"] if head == "match" else None,
                    "frames": frames,
                    "max_text_len": facts["text_len"],
                    "dtype": facts["dtype"],
                    "device": facts["device"],
                    "source": "measured",
                    "n": len(outcome.query),
                    "families": sure.clusters,
                    "language_trained": place[0] in trained_on if trained_on else None,
                    "text_class_trained": place[1] in lengths if lengths else None,
                    "metrics": metrics,
                    **{n: metrics[n] for n in ("r1", "r5", "r10", "medr", "mrr")},
                    "r1_ci95": _round(sure.ci()),
                    "r1_detectable": round(stats.smallest_unpaired(sure), 4),
                    "n_ambiguous": int(outcome.doubtful.sum()),
                    "r1_adjusted": round(loose.mean, 4),
                    "r1_adjusted_ci95": _round(loose.ci()),
                    **{f"query_ms_{n}": ms.get(name, {}).get(n) for n in TIMES},
                    "query_ms_p50_folded": ms.get(f"{head}_folded/{'/'.join(place)}", {}).get("p50"),
                    "kv_share": facts.get("kv_share", {}).get("/".join(place[:2])) if head == "match" else None,
                    "query_gflop": facts["query_gflop"].get(name),
                    **costs,
                    "index_bytes_per_video": facts["index_bytes_per_video"].get(head),
                    **index,
                    "peak_mb": measured.get("peak_mb"),
                    "machine": measured.get("machine"),
                    "threads": facts.get("threads"),
                }
            )
    return out


def _chance(facts: Mapping[str, Any], place: Place, outcome: Outcome) -> float:
    """R@1 of guessing, percent."""
    if facts.get("task") == "multiple_choice":
        return 100 * float(np.mean(1 / outcome.offered))
    if facts.get("task") == "classification":
        return 100 / float(facts["slices"]["/".join(place[:2])]["n_texts"])
    return 100 / float(facts["n_videos"])


def spread(found: Outcomes, table: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the seeds of an arm: R@1 with its interval (other clips, other runs); mean, range, deviation of seeds."""
    out = []
    for (arm, head, place), seeds in _by_seed(found).items():
        together = pool([found[arm, s, head, place] for s in seeds])
        sure = stats.interval(together.rank == 1, together.family, together.run)
        mine = [r for r in table if _key(r) == (arm, head, place)]
        r1 = [r["r1"] for r in mine]
        ms = [r["query_ms_p50"] for r in mine if r["query_ms_p50"] is not None]
        out.append(
            {
                **_named(arm, None, head, place),
                "seeds": seeds,
                "dataset": mine[0]["dataset"],
                "n_videos": mine[0]["n_videos"],
                "n": len(together.rank),
                "r1": round(sure.mean, 4),
                "r1_ci95": _round(sure.ci()),
                "mean": round(statistics.mean(r1), 4),
                "min": min(r1),
                "max": max(r1),
                "sd": round(statistics.stdev(r1), 4) if len(r1) > 1 else None,
                "seeds_ci95": _round(between) if (between := stats.over_seeds(r1)) else None,
                "query_ms_p50": round(statistics.mean(ms), 3) if ms else None,
                "query_gflop": mine[0]["query_gflop"],
                "index_bytes_per_video": mine[0]["index_bytes_per_video"],
            }
        )
    return out


def paired(runs: list[Scored], found: Outcomes) -> list[dict[str, Any]]:
    """Differences of R@1 on the same queries: within an arm by seed and over all seeds, between arms over all."""
    words = {(run.arm, run.seed): condition(run) for run in runs if run.model == "s2"}
    groups = _by_seed(found)
    arms = list(dict.fromkeys(arm for arm, _, _ in groups))
    places = list(dict.fromkeys(place for _, _, place in groups))
    out = []
    for arm, place, (a, b) in itertools.product(arms, places, COMPARED):
        seeds = [s for s in groups.get((arm, a, place), []) if (arm, s, b, place) in found]
        for some in [[s] for s in seeds] + ([seeds] if len(seeds) > 1 else []):
            told = words.get((arm, some[0]), "")
            out.append(_compare(found, [(arm, s, a) for s in some], [(arm, s, b) for s in some], place, told))
    for (one, two), place, (a, b) in itertools.product(itertools.combinations(arms, 2), places, ACROSS):
        seeds = [
            s
            for s in groups.get((one, a, place), [])
            if (two, s, b, place) in found and _same(found[one, s, a, place], found[two, s, b, place])
        ]
        if seeds:
            told = "; ".join(f"{arm}: {words[arm, seeds[0]]}" for arm in (one, two) if (arm, seeds[0]) in words)
            out.append(_compare(found, [(one, s, a) for s in seeds], [(two, s, b) for s in seeds], place, told))
    return [p for p in out if p]


def _compare(
    found: Outcomes,
    left: list[tuple[str, int, Head]],
    right: list[tuple[str, int, Head]],
    place: Place,
    told: str,
) -> dict[str, Any]:
    """One row of `paired`; empty when the two were not asked the same queries."""
    sides = [[found[(*who, place)] for who in side] for side in (left, right)]
    if not all(_same(x, y) for x, y in zip(*sides)):
        return {}
    a, b = (pool(side) for side in sides)
    d = stats.difference(a.rank == 1, b.rank == 1, a.family, a.run)
    each = [round(100 * float((x.rank == 1).mean() - (y.rank == 1).mean()), 4) for x, y in zip(*sides)]
    language, text_class, direction = place
    return {
        "a": "/".join(left[0][2]),
        "b": "/".join(right[0][2]),
        "arm": left[0][0],
        "arm_b": right[0][0],
        "seed": left[0][1] if len(left) == 1 else None,
        "seeds": [s for _, s, _ in left],
        "language": language,
        "text_class": text_class,
        "direction": direction,
        "delta_r1": round(d.delta, 4),
        "ci95": _round(d.ci()),
        "is_clear": d.is_clear,
        "too_few": d.too_few,
        "by_seed": each,
        "p": float(f"{d.p:.4g}"),
        "smallest_detectable": round(d.smallest, 4),
        "only_a": d.only_a,
        "only_b": d.only_b,
        "n": d.n,
        "families": d.clusters,
        "condition": told,
        "method": METHOD + ("; seeds as runs" if d.runs > 1 else "; one run"),
    }


def _by_seed(found: Outcomes) -> dict[tuple[str, Head, Place], list[int]]:
    out: dict[tuple[str, Head, Place], list[int]] = {}
    for arm, seed, head, place in found:
        out.setdefault((arm, head, place), []).append(seed)
    return out


def _same(a: Outcome, b: Outcome) -> bool:
    return np.array_equal(a.query, b.query) and np.array_equal(a.family, b.family)


@dataclass(frozen=True)
class Pooled:
    """Queries of several runs: rank, family and run [Q]. Runs that share a data set share their families, too."""

    rank: np.ndarray
    family: np.ndarray
    run: np.ndarray


def pool(some: Sequence[Outcome]) -> Pooled:
    """The queries of several seeds, each with its run."""
    rank, family = (np.concatenate([getattr(o, name) for o in some]) for name in ("rank", "family"))
    return Pooled(rank, family, np.arange(len(some)).repeat([len(o.rank) for o in some]))


def _named(arm: str, seed: int | None, head: Head, place: Place) -> dict[str, Any]:
    names = dict(zip(("model", "head", "language", "text_class", "direction"), (*head, *place)))
    return {"arm": arm, **({} if seed is None else {"seed": seed}), **names}


def _key(row: Mapping[str, Any]) -> tuple[str, Head, Place]:
    return row["arm"], (row["model"], row["head"]), (row["language"], row["text_class"], row["direction"])


def _round(ci: list[float]) -> list[float]:
    return [round(v, 4) for v in ci]
