"""Step 7: scores -> verdict.json, everything of report.json but what each stage took; `publish` adds that."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ivcore.config import EvalConfig
from ivcore.errors import UserError
from ivcore.retrieval import stats
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Draft, Store
from ivcore.store.log import Log
from ivcore.verdict import (
    choice,
    error_kinds,
    k_curve,
    lineage,
    matching_gain,
    pareto,
    published,
    sentences,
    tables,
)
from ivcore.verdict.examples import examples
from ivcore.verdict.labels import lost, pooled
from ivcore.verdict.publish import VERDICT, as_json

SCHEMA = 1
CELLS = "cells.parquet"


def write_report(draft: Draft, store: Store, evaluation: EvalConfig, scores: Mapping[str, Artifact], log: Log) -> None:
    """Write verdict.json: everything of report.json but the stages.

    Args:
        scores: by ARM.SEED.MODEL, e.g. main.0.s2.

    Raises:
        UserError: when there are no scores.
    """
    if not scores:
        raise UserError("there are no scores to report; run a model first")
    runs = [lineage.trace(store, name, artifact) for name, artifact in scores.items()]
    found = tables.outcomes(runs, evaluation)
    rows = tables.rows(runs, found)
    spread, paired = tables.spread(found, rows), tables.paired(runs, found)
    clips = [r for r in runs if r.model == "clip"]
    out: dict[str, Any] = {
        "schema": SCHEMA,
        "protocol": _protocol(runs, rows, evaluation),
        "rows": rows,
        "spread": spread,
        "paired": paired,
        "k_curve": k_curve.curve(runs, found, rows),
        "errors": error_kinds.kinds(runs),
        "negatives": [row for run in runs if run.seed == runs[0].seed for row in lineage.negatives(run)],
        "gains": matching_gain.between_arms(runs, found),
        "frozen": lineage.frozen((clips or runs)[0]),
        "decoding": lineage.decoding(runs),
        "curves": [curve for run in runs for curve in lineage.curves(run)],
        "examples": examples(runs, evaluation.examples, evaluation.seed),
    }
    out["advice"] = choice.advice(out, pooled(paired))
    out["cells"] = cells(rows + out["k_curve"])
    out["published"] = [row for name in out["protocol"]["datasets"] for row in published.rows(name)]
    schemas.write(draft.path / CELLS, out["cells"], schemas.CELLS)
    out["summary"] = sentences.summary(out)
    (draft.path / VERDICT).write_text(as_json(out), encoding="utf-8")
    for row in rows:
        log({f"r1/{row['model']}/{row['head']}/{row['direction']}": row["r1"]}, row["seed"])
    draft.facts.update(summary=out["summary"], num_rows=len(rows), num_paired=len(out["paired"]))
    draft.count(ok=len(rows))


def cells(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of CELLS: every row of a verdict and of its k curve; the full k stands in the rows alone."""
    full = {r["k"] for r in rows if "seed" in r}
    out = []
    for r in (r for r in rows if "seed" in r or r["k"] not in full):
        cell = {c.name: r.get(c.name) for c in schemas.CELLS.columns}
        taught = [r[name] for name in ("language_trained", "text_class_trained")]
        cell["trained"] = False if False in taught else None if None in taught else True
        out.append(cell | dict(zip(("r1_low", "r1_high"), r["r1_ci95"])) | {"on_front": False})
    names = (*pareto.QUESTION, *pareto.VARIANT)
    best = {tuple(v[n] for n in names) for v in pareto.variants(out) if v["on_front"]}
    return [c | {"on_front": tuple(c[n] for n in names) in best} for c in out]


def cells_of(store: Store, key: str) -> list[dict[str, Any]]:
    """The cells of a report."""
    return list(schemas.rows(store.get(f"report/{key}").path / CELLS, schemas.CELLS))


def _protocol(runs: list[lineage.Scored], rows: list[dict[str, Any]], evaluation: EvalConfig) -> dict[str, Any]:
    """What was asked, of how much, and how the numbers are to be read."""
    facts = runs[0].record["facts"]
    first = next(iter(facts["slices"].values()))
    left_out = {
        (r.arm, r.seed): (r.record["facts"]["clips_left_out"], r.record["facts"]["texts_left_out"]) for r in runs
    }
    clips, texts = (sum(x) for x in zip(*left_out.values()))
    notes = [
        "At equal scores a wrong candidate ranks before a true one.",
        "A query with several true candidates counts the best of them.",
        f"match re-ranks the {evaluation.k} best by sim of each direction; what it did not look at ranks last.",
        "dsl (dual softmax) uses all test queries at once, which a server answering one query cannot.",
        f"Intervals: 95 %, of {rows[0]['families']} whole families (a clip; drawn scenes with their swaps) and, with "
        "several seeds, of training runs; with one seed they hold for these trained weights and other test clips. "
        "One comparison at a time. Where nothing varies (all right, all wrong) each family is one trial.",
        f"A difference is told from chance at p 0.05: {tables.METHOD}. Fewer than {stats.FEW} families are too few.",
        "Smallest difference that would be seen four times in five: 1.43 times half of its interval.",
        "r1_adjusted counts near-duplicates as right: captions with the same words in the same order but for case, "
        "punctuation, articles and forms of to be; swapped words stay wrong.",
        "A text query is timed from the string on; a video query from its stored tokens, the trunk not included.",
        *_extras(runs, evaluation),
        "train_cpu_s and train_gflop count every phase behind a model (clip: s2's too); train_own_* its own stage.",
        f"Left out because their video could not be read: {clips} clips, {texts} captions."
        if clips or texts
        else "No clip of the split that could be read was left out.",
    ]
    named = lineage.datasets(runs)
    first_of = {name: next(r for r in runs if named[r.input("manifest").id] == name) for name in named.values()}
    scored = {name: _scored(run, evaluation) for name, run in first_of.items()}
    notes += [
        f"Scored: {n['videos']} of the {n['of_videos']} videos and {n['texts']} of the {n['of_texts']} texts that "
        f"{name if len(scored) > 1 else 'the data set'} names; lost: {lost(n)}."
        for name, n in scored.items()
    ]
    for name, run in first_of.items():
        alike = run.frames.record()["facts"].get("look_alike") if run.frames else None
        if alike and alike["clips"]:
            few = "; ".join(" and ".join(two) for two in alike["first"][:3])
            notes.append(f"{name}: {alike['clips']} clips of val or test look like a training clip (a copy?): {few}.")
    own = named[runs[0].input("manifest").id]
    return {
        "dataset": own,
        "datasets": {
            name: {n: run.record["facts"][n] for n in ("n_videos", "split_sha256")} for name, run in first_of.items()
        },
        "split": facts["split"],
        "split_sha256": facts["split_sha256"],
        "split_sha256_by_seed": {f"{r.arm}.{r.seed}": r.record["facts"]["split_sha256"] for r in runs},
        "n_texts": first["n_texts"],
        "n_videos": facts["n_videos"],
        "slices": facts["slices"],
        "scored": scored[own],
        "scored_by_dataset": scored,
        "languages": list(dict.fromkeys(r["language"] for r in rows)),
        "text_classes": list(dict.fromkeys(r["text_class"] for r in rows)),
        "arms": list(dict.fromkeys(r.arm for r in runs)),
        "seeds": sorted({r.seed for r in runs}),
        "frames": rows[0]["frames"],
        "k": evaluation.k,
        "shared": _shared(runs),
        "conditions": {r.arm: lineage.condition(r) for r in runs if r.model == "s2"},
        "notes": notes,
    }


def _shared(runs: list[lineage.Scored]) -> list[dict[str, str]]:
    """Models that are one and the same in several arms, {arm, model, with}: `with` is the first arm that has it."""
    whole: dict[tuple[str, str], dict[int, str]] = {}
    for run in runs:
        whole.setdefault((run.arm, run.model), {})[run.seed] = run.scores.id
    out = []
    for (arm, model), ids in whole.items():
        first = next(a for (a, m), other in whole.items() if m == model and other == ids)
        if first != arm:
            out.append({"arm": arm, "model": model, "with": first})
    return out


def _extras(runs: list[lineage.Scored], evaluation: EvalConfig) -> list[str]:
    """What is to be known of matching's time."""
    shares = [share for r in runs for share in r.record["facts"].get("kv_share", {}).values()]
    notes = []
    if shares:
        notes.append(
            f"Matching is timed as a search runs it: keys and values of {100 * min(shares):.0f} % of the videos kept "
            f"(a budget of {evaluation.kv_gb:g} GB), the rest read from the tokens; beside it the time with none kept."
        )
    return notes


def _scored(run: lineage.Scored, evaluation: EvalConfig) -> dict[str, Any]:
    """How many videos and texts of the split were scored, of how many there are, and how many were lost by reason.

    A file that is there twice counts once. What cannot be read and was given no split is of none, and counted apart.
    """
    folder, facts = run.input("manifest").path, run.record["facts"]
    clips = schemas.read(folder / "manifest.parquet", schemas.MANIFEST, ["clip_id", "split", "error"]).to_pylist()
    found = {c["clip_id"]: c["error"] for c in clips}
    if run.frames is not None:
        index = schemas.read(run.frames.path / "index.parquet", schemas.FRAMES, ["clip_id", "error"]).to_pylist()
        found |= {c["clip_id"]: c["error"] for c in index}
    errors = {
        c["clip_id"]: found[c["clip_id"]]
        for c in clips
        if c["split"] == facts["split"] and found[c["clip_id"]] not in schemas.NO_FAULT
    }
    texts = schemas.rows(folder / "captions.parquet", schemas.CAPTIONS)
    asked = [t for t in texts if t["language"] in evaluation.languages and t["text_class"] in evaluation.text_classes]
    return {
        "videos": facts["n_videos"],
        "of_videos": len(errors),
        "lost": dict(sorted(Counter(error for error in errors.values() if error is not None).items())),
        "lost_without_split": sum(not c["split"] for c in clips),
        "texts": sum(part["n_texts"] for part in facts["slices"].values()),
        "of_texts": sum(not t["clip_id"] or t["clip_id"] in errors for t in asked),
    }
