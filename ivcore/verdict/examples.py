"""Example queries with the frames of what each head answered, drawn by seed and not chosen by hand.

Shapes: T frames, H by W pixels.
"""

import base64
import io
import itertools
from typing import Any

import numpy as np
import pyarrow.compute as pc
from PIL import Image

from ivcore.store import schemas
from ivcore.verdict.lineage import Scored
from ivcore.video.frames import Frames

NUM_FRAMES = 4  # of a strip
HEIGHT_PX = 64  # larger frames are made this high; smaller ones are left as they are


def examples(runs: list[Scored], num: int, seed: int) -> list[dict[str, Any]]:
    """`num` text queries of the first arm and seed: caption, true clip, and what each head put first.

    In turn one of all queries, one that matching won and one that it lost, as long as there are any; without matching
    one that the models answered differently.
    """
    if not runs or not num:
        return []
    mine = [r for r in runs if (r.arm, r.seed) == (runs[0].arm, runs[0].seed)]
    answers = _answers(mine)  # query -> [(model, head, first, rank of the true one)]
    captions = schemas.read(mine[0].input("manifest").path / "captions.parquet", schemas.CAPTIONS).to_pylist()
    told = {c["caption_id"]: c for c in captions}
    rng = np.random.default_rng(seed)
    order = rng.permutation(sorted(answers)).tolist()
    right = {q: {(m, h): first == told[q]["clip_id"] for m, h, first, _ in answers[q]} for q in order}
    pools = {"drawn at random": order}
    if any(("s2", "match") in found for found in right.values()):
        pools["won by matching"] = [q for q in order if right[q]["s2", "match"] and not right[q]["s2", "sim"]]
        pools["lost by matching"] = [q for q in order if right[q]["s2", "sim"] and not right[q]["s2", "match"]]
    else:
        pools["the models differ"] = [q for q in order if len(set(right[q].values())) > 1]
    picked: dict[str, str] = {}
    for _, (why, pool) in zip(range(num), itertools.cycle(pools.items())):
        why = why if pool is order else f"{why}, one of {len(pool)}"
        left = [(q, why) for q in pool if q not in picked] or [(q, "drawn at random") for q in order if q not in picked]
        picked |= dict(left[:1])
    clips = {told[q]["clip_id"] for q in picked} | {a[2] for q in picked for a in answers[q]}
    pictures = _pictures(mine[0], sorted(clips))
    return [
        {
            "query_id": q,
            "caption": told[q]["caption"],
            "language": told[q]["language"],
            "text_class": told[q]["text_class"],
            "drawn": why,
            "clip_id": told[q]["clip_id"],
            "picture": pictures.get(told[q]["clip_id"]),
            "answers": [
                {
                    "model": model,
                    "head": head,
                    "clip_id": first,
                    "is_true": first == told[q]["clip_id"],
                    "true_rank": rank,
                    "picture": pictures.get(first),
                }
                for model, head, first, rank in answers[q]
            ],
        }
        for q, why in picked.items()
    ]


def _answers(runs: list[Scored]) -> dict[str, list[tuple[str, str, str, int]]]:
    """Text queries of the first language and class: what each head of each model ranked first, and the truth's rank."""
    out: dict[str, list[tuple[str, str, str, int]]] = {}
    place: tuple[str, str] | None = None
    for run in runs:
        table = schemas.read(run.scores.path / "scores.parquet", schemas.SCORES)
        place = place or (table["language"][0].as_py(), table["text_class"][0].as_py())
        wanted = (pc.field("direction") == "t2v") & (pc.field("language") == place[0])
        table = table.filter(wanted & (pc.field("text_class") == place[1]))
        first: dict[tuple[str, str], str] = {}
        true: dict[tuple[str, str], int] = {}
        for row in table.filter((pc.field("rank") == 1) | pc.field("relevant")).to_pylist():
            spot = (row["query_id"], row["head"])
            if row["rank"] == 1:
                first[spot] = row["candidate_id"]
            if row["relevant"]:
                true[spot] = min(row["rank"], true.get(spot, row["rank"]))
        for query, head in first:
            if head != "dsl":
                out.setdefault(query, []).append((run.model, head, first[query, head], true[query, head]))
    return out


def _pictures(run: Scored, clips: list[str]) -> dict[str, str]:
    """A strip of frames of each clip as a data URI; none when the frames are no longer in the store."""
    if run.frames is None:
        return {}
    source = Frames(run.store, run.frames)
    known = [c for c in clips if c in set(source.clip_ids)]
    rows = source.rows_of(known)
    return {clip: strip(source.batch([row])[0].numpy()) for clip, row in zip(known, rows)}


def strip(frames: np.ndarray) -> str:
    """uint8 [T, H, W, 3] -> NUM_FRAMES of them side by side, as a PNG in a data URI."""
    pick = np.linspace(0, len(frames) - 1, min(NUM_FRAMES, len(frames))).round().astype(int)
    gap = max(1, frames.shape[1] // 32)
    apart = np.pad(frames[pick], ((0, 0), (0, 0), (0, gap), (0, 0)), constant_values=128)  # [n, H, W + gap, 3]
    image = Image.fromarray(np.concatenate(list(apart), axis=1)[:, :-gap])  # [H, n * (W + gap) - gap, 3]
    if image.height > HEIGHT_PX:
        image = image.resize((image.width * HEIGHT_PX // image.height, HEIGHT_PX), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
