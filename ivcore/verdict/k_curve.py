"""What k buys: R@1 of matching had it re-scored fewer candidates, without scoring anything again.

Shapes: Q queries, k candidates kept.

The logit of a pair does not depend on k, and the candidates at a smaller k are the first of those at the larger one. So
one table of scores holds the whole curve. At k = 1 nothing is re-ordered: that is the similarity itself.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ivcore.retrieval import stats
from ivcore.retrieval.rerank import k_steps
from ivcore.store import schemas
from ivcore.verdict.lineage import Scored

SAME = (
    "task",
    "dataset",
    "n_videos",
    "chance",
    "families",
    "model",
    "size",
    "head",
    "frames",
    "max_text_len",
    "dtype",
    "device",
    "machine",
    "index_bytes_per_video",
    "peak_mb",
    "language_trained",
    "text_class_trained",
)
WHERE = ("arm", "language", "text_class", "direction")
NOWHERE = np.iinfo(np.int32).max  # rank of a true candidate that was not re-scored
Place = tuple[str, str, str]  # language, text class, direction


def ranks_at(run: Scored, k: int) -> dict[Place, tuple[np.ndarray, dict[int, np.ndarray]]]:
    """By place: queries [Q], sorted, and by k the rank [Q] of the best true candidate among those re-scored."""
    columns = ["query_id", "candidate_id", "head", "language", "text_class", "direction", "rank", "score", "relevant"]
    table = schemas.read(run.scores.path / "scores.parquet", schemas.SCORES, columns)
    by = ["language", "text_class", "direction"]
    out = {}
    for spot in table.select(by).group_by(by, use_threads=False).aggregate([]).to_pylist():
        here = table.filter(pc.field(by[0]) == spot[by[0]])
        for name in by[1:]:
            here = here.filter(pc.field(name) == spot[name])
        sim, match = (here.filter(pc.field("head") == head) for head in ("sim", "match"))
        if len(match):
            out[spot["language"], spot["text_class"], spot["direction"]] = _ranks(sim, match, k)
    return out


def _ranks(sim: pa.Table, match: pa.Table, k: int) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    logits = match.select(["query_id", "candidate_id", "score"]).rename_columns(["query_id", "candidate_id", "logit"])
    both = sim.filter(pc.field("rank") <= k).join(logits, ["query_id", "candidate_id"], use_threads=False)
    both = both.sort_by([("query_id", "ascending"), ("rank", "ascending")])
    names, query = np.unique(np.array(both.column("query_id").to_pylist()), return_inverse=True)
    place, logit, true = (both.column(n).to_numpy() for n in ("rank", "logit", "relevant"))
    out = {}
    for step in k_steps(k):
        seen = place <= step
        top = np.full(len(names), -np.inf)
        np.maximum.at(top, query[seen & true], logit[seen & true])
        ahead = np.bincount(query[seen & ~true & (logit >= top[query])], minlength=len(names))
        out[step] = np.where(np.isfinite(top), ahead + 1, NOWHERE)
    return names, out


def curve(runs: list[Scored], found: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row an arm, place and k: R@1 over all seeds, what it gains over similarity, and the time of a query.

    Args:
        found: outcomes of the verdict, for the families of the queries.
        rows: of the verdict, for what does not depend on k.
    """
    ranks: dict[tuple[str, Place, int], list[tuple[np.ndarray, np.ndarray]]] = {}
    times: dict[tuple[str, Place, int], list[dict[str, float]]] = {}
    for run in (r for r in runs if r.model == "s2"):
        largest = run.record["facts"]["k"]
        measured = run.record["measured"]
        for place, (query, at) in ranks_at(run, largest).items():
            known = found[run.arm, run.seed, ("s2", "match"), place]
            if not np.array_equal(query, known.query):
                continue  # a query whose candidates were not all kept: an older table
            for k, rank in at.items():
                ranks.setdefault((run.arm, place, k), []).append((rank, known.family))
                ms = measured.get("k_ms", {}).get(f"{k}/{place[0]}/{place[1]}") if place[2] == "t2v" else None
                ms = measured["query_ms"].get(f"match/{'/'.join(place)}") if k == largest else ms
                if ms:
                    times.setdefault((run.arm, place, k), []).append(ms)
    out = []
    for (arm, place, k), each in ranks.items():
        rank, family = (np.concatenate(x) for x in zip(*each))
        runs_of = np.arange(len(each)).repeat([len(r) for r, _ in each])
        first = np.concatenate([r for r, _ in ranks[arm, place, 1]])
        sure = stats.interval(rank == 1, family, runs_of)
        gain = stats.difference(rank == 1, first == 1, family, runs_of)
        ms = times.get((arm, place, k), [])
        about = next(r for r in rows if r["head"] == "match" and tuple(r[n] for n in WHERE) == (arm, *place))
        out.append(
            {
                **dict(zip(WHERE, (arm, *place))),
                **{name: about[name] for name in SAME},
                "k": k,
                "n": len(rank),
                "r1": round(sure.mean, 4),
                "r1_ci95": [round(v, 4) for v in sure.ci()],
                "gain": round(gain.delta, 4),
                "gain_ci95": [round(v, 4) for v in gain.ci()],
                "is_clear": gain.is_clear,
                **{
                    f"query_ms_{p}": round(float(np.mean([m[p] for m in ms])), 3) if ms else None
                    for p in ("p50", "p95")
                },
            }
        )
    return out
