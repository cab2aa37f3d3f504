"""What is wrong when an answer is wrong: a twin of the true clip, a clip that is said the same of, or another one.

A twin is a clip of the same family, in synthetic data the same scene with a binding swapped: the error that matching
is meant to mend. Where families are single clips there are no twins.
"""

from typing import Any

import numpy as np
import pyarrow.compute as pc

from ivcore.store import schemas
from ivcore.verdict.lineage import Scored
from ivcore.verdict.near_duplicates import said

KINDS = ("right", "near_duplicate", "twin", "other")
PLACE = ("language", "text_class", "direction")


def kinds(runs: list[Scored]) -> list[dict[str, Any]]:
    """One row an arm, head and place: percent of the queries whose first answer is of each kind, all seeds together."""
    counts: dict[tuple[str, ...], dict[str, int]] = {}
    for run in runs:
        manifest = run.input("manifest")
        clips = schemas.read(manifest.path / "manifest.parquet", schemas.MANIFEST, ["clip_id", "family"])
        family = dict(zip(*(column.to_pylist() for column in clips.columns)))
        texts = schemas.read(manifest.path / "captions.parquet", schemas.CAPTIONS, ["caption_id", "clip_id"])
        of = dict(zip(*(column.to_pylist() for column in texts.columns)))
        known = said(manifest)
        columns = ["query_id", "candidate_id", "head", *PLACE, "relevant"]
        table = schemas.read(run.scores.path / "scores.parquet", schemas.SCORES, [*columns, "rank"])
        first = table.filter(pc.field("rank") == 1).select(columns)
        query, candidate, head, language, text_class, direction, right = (c.to_pylist() for c in first.columns)
        pairs = [(q, c) if d == "t2v" else (c, q) for q, c, d in zip(query, candidate, direction)]  # caption, clip
        same = known.joins(*(np.array(x, dtype=object) for x in ([c for _, c in pairs], [t for t, _ in pairs])))
        for n, (text, clip) in enumerate(pairs):
            twin = of.get(text) in family and family[of[text]] == family.get(clip)
            kind = "right" if right[n] else "near_duplicate" if same[n] else "twin" if twin else "other"
            key = (run.arm, run.model, head[n], language[n], text_class[n], direction[n])
            counts.setdefault(key, dict.fromkeys(KINDS, 0))[kind] += 1
    return [
        {
            **dict(zip(("arm", "model", "head", *PLACE), key)),
            "n": sum(found.values()),
            **{name: round(100 * num / sum(found.values()), 4) for name, num in found.items()},
        }
        for key, found in counts.items()
    ]
