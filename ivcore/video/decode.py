"""Step 2: manifest -> frame shards and their index, which takes each clip from whichever shard has it."""

import collections
import contextlib
import logging
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ivcore.config import FramesConfig
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Draft, Store
from ivcore.store.log import Log
from ivcore.video import decoder_cost, failed_share, likeness, shards
from ivcore.video.decode_clips import task_of

FEW = 20  # pairs of clips that look alike, in the record
told = logging.getLogger("iv.video")
Row = dict[str, Any]


def decode_manifest(
    draft: Draft,
    store: Store,
    root: Path,
    frames: FramesConfig,
    manifest: Artifact,
    max_failed_share: float,
    log: Log,
    later_gb: float = 0.0,
    later_must: bool = False,
) -> None:
    """Write index.parquet of the frames artifact; make the shards that are not in the store yet.

    Args:
        later_gb: what the features to come will take; `later_must`: it is no use to begin without room for them.

    Raises:
        WorkError: there is no room; or more than `max_failed_share` of the clips, or all, could not be decoded.
    """
    clips = list(schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST))
    known, parts = shards.planned(store, frames, clips, later_gb, later_must)
    new = [clips[row] for part in parts for row in part]
    readable = [clip for clip in new if clip["error"] is None]
    spent: list[float] = []  # CPU seconds of the workers, a clip each
    began, num_failed, done = time.monotonic(), sum(row["error"] is not None for row in known.values()), len(known)
    if known:
        log({"clips": done, "clips_failed": num_failed}, done)
    with (
        contextlib.closing(shards.decoded(root, frames, readable, spent.append)) as results,
        tqdm(total=len(clips), initial=done, desc="decode", unit="clip", disable=None) as bar,
    ):
        for part in parts:
            shard = shards.write_shard(store, frames, [clips[row] for row in part], results, spent)
            rows = list(schemas.rows(shard.path / "index.parquet", schemas.FRAMES))
            known |= {shards.content_of(clips[row]): entry for row, entry in zip(part, rows, strict=True)}
            num_failed += sum(row["error"] is not None for row in rows)
            done += len(part)
            bar.update(len(part))
            bar.set_postfix(failed=num_failed)
            rate = (done - len(clips) + len(new)) / max(time.monotonic() - began, 1e-9)
            log({"clips": done, "clips_failed": num_failed, "clips_per_s": rate}, done)
    index = [known[shards.content_of(clip)] for clip in clips]
    for row, clip in zip(index, clips, strict=True):  # what the prober said is not in the shard
        row["detail"] = (clip["error"] and clip.get("detail")) or row["detail"]
    seconds = round(time.monotonic() - began, 3)
    failed = [row for row in index if row["error"] is not None]
    reasons = dict(sorted(collections.Counter(row["error"] for row in failed).items()))
    failed_share.check(index, max_failed_share, "could not be decoded")
    schemas.write(draft.path / "index.parquet", index, schemas.FRAMES)
    draft.count(*failed_share.counted(index))
    decoders = collections.Counter(row["decoder"] for row in index if row["decoder"])
    draft.facts |= {"num_frames": frames.num_frames, "size_px": frames.size_px, "reasons": reasons}
    draft.facts |= {"decoders": dict(sorted(decoders.items()))}
    draft.facts |= {"damaged": sum("damaged pictures of" in (row["detail"] or "") for row in index)}
    draft.facts |= {"look_alike": _look_alike(clips, index)}
    draft.facts |= shards.lost_within(frames, index) | ({} if frames.cache else {"streamed": True})
    draft.measured |= {} if frames.cache else {"root": str(root)}  # differs between machines, as times do
    draft.measured |= {"decode_s": seconds, "workers_cpu_s": round(sum(spent), 3), "shards_made": len(parts)}
    draft.measured["clips_made"] = len(readable)
    draft.workers_cpu_s = sum(spent)
    good = {row["clip_id"] for row in index if row["error"] is None}
    few = decoder_cost.drawn([clip for clip in new if clip["clip_id"] in good])
    draft.measured["decoder_ms"] = decoder_cost.decoder_ms([task_of(root, frames, clip) for clip in few]) if few else {}


def _look_alike(clips: list[Row], index: list[Row]) -> dict[str, Any]:
    """How many clips of val and test look like a training clip of another file, and the first few of these pairs."""
    seen = [(clip, row["sketch"]) for clip, row in zip(clips, index, strict=True) if row.get("sketch")]
    train, held = ([x for x in seen if (x[0]["split"] == "train") == taught] for taught in (True, False))
    found = likeness.pairs([bits for _, bits in train], [bits for _, bits in held])
    ids = [(held[b][0], train[a][0]) for a, b in found]
    ids = [(one["clip_id"], other["clip_id"]) for one, other in ids if one["sha256"] != other["sha256"]]
    if ids:
        told.warning("%d clips of val or test look like a training clip, such as %s and %s", len(ids), *ids[0])
    return {"clips": len(ids), "first": ids[:FEW]}
