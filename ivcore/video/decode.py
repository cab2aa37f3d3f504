"""Step 2: manifest -> frame shards and their index.

A shard is an artifact of its own, keyed by the frames' recipe and the bytes and windows of its clips. The index takes
each clip from whichever shard has it, so a killed run decodes only what it had not finished, and a data set that grew
only its new clips.
"""

import collections
import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm import tqdm

from ivcore.config import FramesConfig
from ivcore.errors import WorkError
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Draft, Store, key
from ivcore.store.versions import VERSIONS
from ivcore.video import decoder_cost, disk_plan, pool
from ivcore.video.deadlines import with_deadline
from ivcore.video.decode_file import Decoded, Task, decode_file
from ivcore.video.sampling import Sampling

GROUP_CLIPS, GROUP_BYTES = 64, 16 << 20  # of a row group: bounds what waits in memory while a shard is written
KNOWN = "found when the data set was read"
LOST = ("timeout", "crashed", "out_of_memory")  # with more time, or another day, these may come
OTHER = {"auto": "pyav", "pyav": "sequential"}  # what to try once when a worker was lost
PIXELS_A_SECOND = 5e8  # of one core that decodes every frame
LONGEST = 10.0  # times the deadline that a long video may take

Log = Callable[[Mapping[str, float], int], None]
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
    known, parts = planned(store, frames, clips, later_gb, later_must)
    new = [clips[row] for part in parts for row in part]
    readable = [clip for clip in new if clip["error"] is None]
    spent: list[float] = []  # CPU seconds of the workers, a clip each
    began, num_failed, done = time.monotonic(), sum(row["error"] is not None for row in known.values()), len(known)
    if known:
        log({"clips": done, "clips_failed": num_failed}, done)
    with (
        contextlib.closing(_results(root, frames, readable, spent.append)) as results,
        tqdm(total=len(clips), initial=done, desc="decode", unit="clip", disable=None) as bar,
    ):
        for part in parts:
            shard = _write_shard(store, frames, [clips[row] for row in part], results, spent)
            rows = list(schemas.rows(shard.path / "index.parquet", schemas.FRAMES))
            known |= {_content(clips[row]): entry for row, entry in zip(part, rows, strict=True)}
            num_failed += sum(row["error"] is not None for row in rows)
            done += len(part)
            bar.update(len(part))
            bar.set_postfix(failed=num_failed)
            rate = (done - len(clips) + len(new)) / max(time.monotonic() - began, 1e-9)
            log({"clips": done, "clips_failed": num_failed, "clips_per_s": rate}, done)
    index = [known[_content(clip)] for clip in clips]
    seconds = round(time.monotonic() - began, 3)
    failed = [row for row in index if row["error"] is not None]
    reasons = dict(sorted(collections.Counter(row["error"] for row in failed).items()))
    num_failed = len(failed) - reasons.get(schemas.DUPLICATE, 0)
    if num_failed > max_failed_share * len(index) or len(failed) == len(index):
        told = ", ".join(f"{num} {reason}" for reason, num in reasons.items())
        raise WorkError(
            f"{num_failed} of {len(index)} clips could not be decoded ({told}), the first is {failed[0]['clip_id']}; "
            f"data.max_failed_share allows {max_failed_share:g}; mend the videos or leave them out, "
            "and raise data.max_failed_share if the rest is enough"
        )
    schemas.write(draft.path / "index.parquet", index, schemas.FRAMES)
    draft.count(len(index) - len(failed), len(failed))
    decoders = collections.Counter(row["decoder"] for row in index if row["decoder"])
    draft.facts |= {"num_frames": frames.num_frames, "size_px": frames.size_px, "reasons": reasons}
    draft.facts |= {"decoders": dict(sorted(decoders.items()))}
    draft.facts |= _lost(frames, index) | ({} if frames.cache else {"streamed": True})
    draft.measured |= {} if frames.cache else {"root": str(root)}  # differs between machines, as times do
    draft.measured |= {"decode_s": seconds, "workers_cpu_s": round(sum(spent), 3), "shards_made": len(parts)}
    draft.measured["clips_made"] = len(readable)
    draft.workers_cpu_s = sum(spent)
    good = {row["clip_id"] for row in index if row["error"] is None}
    few = decoder_cost.drawn([clip for clip in new if clip["clip_id"] in good])
    draft.measured["decoder_ms"] = decoder_cost.decoder_ms([task_of(root, frames, clip) for clip in few]) if few else {}


def planned(
    store: Store, frames: FramesConfig, clips: list[Row], later_gb: float = 0.0, later_must: bool = False
) -> tuple[dict[tuple[Any, ...], Row], list[list[int]]]:
    """Index rows of the clips that some shard has, by content; row numbers of the clips of each shard to make.

    Raises:
        WorkError: there is no room for these.
    """
    known = _known(store, frames, clips)
    new = [row for row, clip in enumerate(clips) if _content(clip) not in known]
    num = sum(clips[row]["error"] is None for row in new)
    wanted_gb = disk_plan.frames_gb(num, frames) if frames.cache else 0.0
    disk_plan.check("new frames", num, wanted_gb, store.home, frames.disk_gb, later_gb, later_must)
    return known, [new[start : start + frames.shard_clips] for start in range(0, len(new), frames.shard_clips)]


def make_shards(
    store: Store, root: Path, frames: FramesConfig, manifest: Artifact, parts: Sequence[Sequence[int]]
) -> list[str]:
    """Ids of the shards of these rows of the manifest; what is not found is decoded by processes of this machine."""
    table = schemas.read(manifest.path / "manifest.parquet", schemas.MANIFEST)
    shards = [table.take(list(part)).to_pylist() for part in parts]
    new = [clips for clips in shards if store.find("frame_shard", _recipe(store, frames, clips)[1]) is None]
    readable = [clip for clips in new for clip in clips if clip["error"] is None]
    spent: list[float] = []
    with contextlib.closing(_results(root, frames, readable, spent.append)) as results:
        for clips in new:
            _write_shard(store, frames, clips, results, spent)
    return [f"frame_shard/{_recipe(store, frames, clips)[1]}" for clips in shards]


def _content(clip: Row) -> tuple[Any, ...]:
    """What a clip's frames hang on, beside how they are taken."""
    return clip["clip_id"], clip["sha256"], clip["start_s"], clip["end_s"], clip["error"]


def _how(frames: FramesConfig) -> dict[str, Any]:
    """How frames are taken: the recipe of a shard but for its clips."""
    return {k: v for k, v in frames.recipe().items() if k != "shard_clips"}


def _known(store: Store, frames: FramesConfig, clips: list[Row]) -> dict[tuple[Any, ...], Row]:
    """Index rows of the clips that some shard has, by content; not of what was lost under a shorter deadline."""
    wanted, how, known = {_content(clip) for clip in clips}, _how(frames), dict[tuple[Any, ...], Row]()
    for id, record in store.records("frame_shard"):
        recipe = dict(record["config"])
        contents = [tuple(clip) for clip in recipe.pop("clips", [])]
        recipe.pop("deadline_s", None)
        if record["version"] != VERSIONS["frame_shard"] or recipe != how or wanted.isdisjoint(contents):
            continue
        given_up = record["facts"].get("lost_within_s", frames.deadline_s) >= frames.deadline_s
        rows = schemas.rows(store.get(id).path / "index.parquet", schemas.FRAMES)
        for content, row in zip(contents, rows, strict=True):
            usable = content in wanted and (given_up or row["error"] not in LOST)
            if usable and (content not in known or known[content]["error"] in LOST):
                known[content] = row
    return known


def _recipe(store: Store, frames: FramesConfig, clips: list[Row]) -> tuple[dict[str, Any], str]:
    """The recipe and the key of the shard of these clips."""
    recipe = {**_how(frames), "clips": [list(_content(clip)) for clip in clips]}
    recipe = with_deadline(store, "frame_shard", recipe, {}, frames.deadline_s)
    return recipe, key("frame_shard", VERSIONS["frame_shard"], recipe, {})


def _write_shard(
    store: Store, frames: FramesConfig, clips: list[Row], results: Iterator[Decoded], spent: Sequence[float] = ()
) -> Artifact:
    """The shard of these clips; `results` gives what became of those without an error, in order.

    Beside it `spent` grows by the CPU seconds they took.
    """
    recipe, name = _recipe(store, frames, clips)
    with store.write("frame_shard", name, VERSIONS["frame_shard"], recipe, {}) as draft:
        before = len(spent)
        rows = _write(draft.path, f"frame_shard/{name}", frames, clips, results)
        failed = sum(row["error"] is not None for row in rows)
        draft.count(len(rows) - failed, failed)
        draft.facts |= _lost(frames, rows)
        draft.workers_cpu_s = sum(spent[before:])
    assert draft.artifact is not None
    return draft.artifact


def _write(folder: Path, shard: str, frames: FramesConfig, clips: list[Row], results: Iterator[Decoded]) -> list[Row]:
    """Write frames.parquet and index.parquet of these clips into `folder`; the index rows."""
    rows: list[Row] = []
    group: list[Row] = []
    num = waiting = 0  # rows of frames.parquet; bytes of the group
    schema = schemas.FRAME_SHARD.schema()
    options = {"write_page_checksum": True, "use_dictionary": False, "write_statistics": False}
    with contextlib.ExitStack() as stack:
        if frames.cache:
            file = folder / "frames.parquet"
            writer = stack.enter_context(pq.ParquetWriter(file, schema, compression=frames.compression, **options))
        for clip in clips:
            known = clip["error"] is not None
            got = Decoded(None, error=clip["error"], detail=KNOWN) if known else next(results)
            row = dict.fromkeys(c.name for c in schemas.FRAMES.columns) | {"clip_id": clip["clip_id"]}
            row |= {"error": got.error, "detail": got.detail}
            if got.frames is not None:
                row |= {"frame_index": got.frame_index, "pts_s": got.pts_s, "num_frames": got.num_frames}
                row |= {"pixel_aspect": got.pixel_aspect, "decoder": got.decoder}
            if got.frames is not None and frames.cache:
                row |= {"shard": shard, "row": num}
                group.append({"clip_id": clip["clip_id"], "frames": got.frames.tobytes()})
                num, waiting = num + 1, waiting + got.frames.nbytes
            rows.append(row)
            if len(group) == GROUP_CLIPS or waiting >= GROUP_BYTES:
                writer.write_table(schemas.check(pa.Table.from_pylist(group, schema), schemas.FRAME_SHARD))
                group, waiting = [], 0
        if frames.cache:
            writer.write_table(schemas.check(pa.Table.from_pylist(group, schema), schemas.FRAME_SHARD))
    schemas.write(folder / "index.parquet", rows, schemas.FRAMES)
    return rows


def _lost(frames: FramesConfig, rows: list[Row]) -> dict[str, float]:
    """The deadline under which something was lost that may come with more time; {} when nothing was."""
    return {"lost_within_s": frames.deadline_s} if any(row["error"] in LOST for row in rows) else {}


def _results(root: Path, frames: FramesConfig, clips: list[Row], spent: Callable[[float], None]) -> Iterator[Decoded]:
    """What became of each clip, in order. A worker that was lost on a clip leaves it to the other decoder once."""
    tasks = (task_of(root, frames, clip) for clip in clips)
    workers = max(min(pool.num_workers(frames.workers), len(clips)), 1)
    size = disk_plan.clip_bytes(frames)
    for got in pool.run(decode_file, tasks, workers, lambda task: task.deadline_s, other_decoder, spent, size):
        yield Decoded(None, error=got.reason, detail=got.detail) if isinstance(got, pool.Lost) else got


def other_decoder(task: Task) -> Task | None:
    """The same clip for the other decoder; None where there is none."""
    return dataclasses.replace(task, decoder=OTHER[task.decoder]) if task.decoder in OTHER else None


def task_of(root: Path, frames: FramesConfig, clip: Row) -> Task:
    """The task that decodes this row of the manifest."""
    pixels = (clip["duration_s"] or 0) * (clip["fps"] or 25) * (clip["width"] or 0) * (clip["height"] or 0)
    return Task(
        path=root / clip["path"],
        which=Sampling(frames.sampling, frames.num_frames, frames.fps, seed=clip["clip_id"], shift=frames.shift),
        size_px=frames.size_px,
        antialias=frames.resize == "bicubic-antialias",
        crop=frames.crop == "centre",
        decoder=frames.decoder,
        start_s=clip["start_s"],
        end_s=clip["end_s"],
        deadline_s=min(frames.deadline_s + 5 * pixels / PIXELS_A_SECOND, LONGEST * frames.deadline_s),
    )
