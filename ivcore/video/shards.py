"""Frame shards: which clips some shard has, which shards are to be made, and the making of one.

A shard is an artifact of its own, keyed by the frames' recipe and the bytes and windows of its clips. So a killed run
decodes only what it had not finished, and a data set that grew only its new clips.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ivcore.config import FramesConfig
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store, key
from ivcore.store.versions import VERSIONS
from ivcore.video import disk_plan, likeness
from ivcore.video.deadlines import with_deadline
from ivcore.video.decode_clips import decode_clips, task_of
from ivcore.video.decode_file import Decoded

GROUP_CLIPS, GROUP_BYTES = 64, 1 << 20  # of a row group, the least that is read: a clip of 224 pixels stands alone
KNOWN = "found when the data set was read"
LOST = ("timeout", "crashed", "out_of_memory")  # with more time, or another day, these may come

Row = dict[str, Any]


def planned(
    store: Store, frames: FramesConfig, clips: list[Row], later_gb: float = 0.0, later_must: bool = False
) -> tuple[dict[tuple[Any, ...], Row], list[list[int]]]:
    """Index rows of the clips that some shard has, by content; row numbers of the clips of each shard to make.

    Raises:
        WorkError: there is no room for these.
    """
    known = found(store, frames, clips)
    new = [row for row, clip in enumerate(clips) if content_of(clip) not in known]
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
    with contextlib.closing(decoded(root, frames, readable, spent.append)) as results:
        for clips in new:
            write_shard(store, frames, clips, results, spent)
    return [f"frame_shard/{_recipe(store, frames, clips)[1]}" for clips in shards]


def decoded(
    root: Path, frames: FramesConfig, clips: Sequence[Row], spent: Callable[[float], None]
) -> Generator[Decoded, None, None]:
    """What became of each of these clips of the manifest, in order; `spent` is told CPU seconds of the workers."""
    return decode_clips((task_of(root, frames, clip) for clip in clips), len(clips), frames, spent)


def write_shard(
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
        draft.facts |= lost_within(frames, rows)
        draft.workers_cpu_s = sum(spent[before:])
    assert draft.artifact is not None
    return draft.artifact


def content_of(clip: Row) -> tuple[Any, ...]:
    """What a clip's frames hang on, beside how they are taken."""
    return clip["clip_id"], clip["sha256"], clip["start_s"], clip["end_s"], clip["error"]


def lost_within(frames: FramesConfig, rows: list[Row]) -> dict[str, float]:
    """The deadline under which something was lost that may come with more time; {} when nothing was."""
    return {"lost_within_s": frames.deadline_s} if any(row["error"] in LOST for row in rows) else {}


def _how(frames: FramesConfig) -> dict[str, Any]:
    """How frames are taken: the recipe of a shard but for its clips."""
    return {k: v for k, v in frames.recipe().items() if k != "shard_clips"}


def found(store: Store, frames: FramesConfig, clips: list[Row]) -> dict[tuple[Any, ...], Row]:
    """Index rows of the clips that some shard has, by content; not of what was lost under a shorter deadline."""
    wanted, how, known = {content_of(clip) for clip in clips}, _how(frames), dict[tuple[Any, ...], Row]()
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
    recipe = {**_how(frames), "clips": [list(content_of(clip)) for clip in clips]}
    recipe = with_deadline(store, "frame_shard", recipe, {}, frames.deadline_s)
    return recipe, key("frame_shard", VERSIONS["frame_shard"], recipe, {})


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
                row |= {"sketch": likeness.sketch(got.frames)}
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
