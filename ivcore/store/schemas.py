"""Every Parquet table: columns, types, what they mean. Readers refuse another version.

The schema's name and version travel inside each file; docs/data.md is made from this module.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ivcore.errors import WorkError
from ivcore.store.soundness import check as check_file
from ivcore.store.soundness import pages

DUPLICATE = "duplicate"  # the clip is there under another clip_id
OVERLAP = "overlap"  # the clip shows a part of one that is scored or validated on
NO_FAULT = (DUPLICATE, OVERLAP)  # errors of clips that could be used


@dataclass(frozen=True)
class Column:
    """One column; `nullable` is checked by us, since Arrow lets nulls into columns declared without."""

    name: str
    type: pa.DataType
    doc: str
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One kind of table."""

    name: str
    version: int
    doc: str
    columns: tuple[Column, ...]

    def schema(self) -> pa.Schema:
        """The Arrow schema, with name and version as metadata."""
        meta = {"iv.table": self.name, "iv.version": str(self.version)}
        fields = [pa.field(c.name, c.type, c.nullable, {"doc": c.doc}) for c in self.columns]
        return pa.schema(fields, metadata=meta)


MANIFEST = Table(
    "manifest",
    2,
    "One row a clip: a video file, a stretch of one, or a still image.",
    (
        Column("clip_id", pa.string(), "unique within the data set; stable between runs"),
        Column("path", pa.string(), "path of the file below the data root"),
        Column("sha256", pa.string(), "sha256 of the file's bytes, hex"),
        Column("bytes", pa.int64(), "size of the file"),
        Column("start_s", pa.float64(), "where the clip begins in the file, seconds; null: at its beginning", True),
        Column("end_s", pa.float64(), "where it ends, seconds; null: at its end", True),
        Column("split", pa.string(), "train, val or test; empty: none was given, and the file cannot be used"),
        Column("source", pa.string(), "data set it comes from: the part's name in a mix"),
        Column("media", pa.string(), "video, or image (one frame: trained on, never scored)"),
        Column("weight", pa.int32(), "times it comes by in an epoch of training"),
        Column("family", pa.string(), "clips of one family are near-twins (a scene and its swaps); else the file"),
        Column("duration_s", pa.float64(), "as probed, seconds; null where the file does not say", True),
        Column("width", pa.int32(), "as probed, pixels", True),
        Column("height", pa.int32(), "as probed, pixels", True),
        Column("fps", pa.float64(), "as probed, average frames a second", True),
        Column("codec", pa.string(), "as probed", True),
        Column("error", pa.string(), "why it is not used (duplicate: as another clip); null when it is", True),
        Column("detail", pa.string(), "the reason in more words, of the decoder where it has some", True),
    ),
)
CAPTIONS = Table(
    "captions",
    1,
    "One row a caption.",
    (
        Column("caption_id", pa.string(), "unique within the data set"),
        Column("clip_id", pa.string(), "the clip it describes"),
        Column("language", pa.string(), "en, zh, es"),
        Column("text_class", pa.string(), "short, or long (more than 32 words, marks or Chinese characters)"),
        Column("caption", pa.string(), "the text as given"),
    ),
)
PAIRS = Table(
    "pairs",
    1,
    "Captions put to clips they do not belong to: classes and options, whose own clip_id is empty, and captions of "
    "several clips; absent where there are none.",
    (
        Column("caption_id", pa.string(), "the class, option or caption"),
        Column("clip_id", pa.string(), "the clip"),
        Column("relevant", pa.bool_(), "true of the clip; false: a wrong option of its own choice"),
    ),
)
FRAME_SHARD = Table(
    "frame_shard",
    1,
    "One row a clip that could be decoded; the frames lie back to back.",
    (
        Column("clip_id", pa.string(), "the clip"),
        Column("frames", pa.large_binary(), "uint8 [T, H, W, 3], C order"),
    ),
)
FRAMES = Table(
    "index",
    2,
    "One row a clip of the manifest, decoded or not.",
    (
        Column("clip_id", pa.string(), "the clip"),
        Column("shard", pa.string(), "artifact (KIND/KEY) of the shard; null when not decoded, or not kept", True),
        Column("row", pa.int32(), "row in the shard", True),
        Column("frame_index", pa.list_(pa.int32()), "frame numbers taken", True),
        Column("pts_s", pa.list_(pa.float64()), "their presentation times, seconds", True),
        Column("num_frames", pa.int32(), "frames the file can present", True),
        Column("pixel_aspect", pa.float64(), "width of a pixel over its height; frames are not stretched by it", True),
        Column("sketch", pa.binary(), "bits that are nearly the same of a copy that was encoded anew", True),
        Column("decoder", pa.string(), "decoder and version that gave the frames", True),
        Column("error", pa.string(), "reason: unreadable, no_video_stream, truncated, timeout, crashed, ...", True),
        Column("detail", pa.string(), "the decoder's own words", True),
    ),
)
SCORES = Table(
    "scores",
    1,
    "For each query the top k candidates and every true one.",
    (
        Column("query_id", pa.string(), "caption_id (t2v) or clip_id (v2t)"),
        Column("candidate_id", pa.string(), "clip_id (t2v) or caption_id (v2t)"),
        Column("model", pa.string(), "s2 or clip"),
        Column("head", pa.string(), "sim, dsl or match"),
        Column("direction", pa.string(), "t2v or v2t"),
        Column("language", pa.string(), "of the captions"),
        Column("text_class", pa.string(), "short or long"),
        Column("rank", pa.int32(), "1 is best; at equal score a wrong candidate stands before a true one"),
        Column(
            "score",
            pa.float32(),
            "cosine (sim), cosine times softmax (dsl), raw logit (match; -100: none)",
        ),
        Column("relevant", pa.bool_(), "the candidate is a true one"),
    ),
)
CURVES = Table(
    "curves",
    1,
    "Training figures by step.",
    (
        Column("phase", pa.string(), "phase of the stage"),
        Column("step", pa.int32(), "optimiser step, from 1"),
        Column("name", pa.string(), "loss, loss/vtc, lr, temp, ..."),
        Column("value", pa.float64(), "its value"),
    ),
)
CELLS = Table(
    "cells",
    2,
    "One row a cell of a report: a variant asked in one language, length and direction.",
    (
        Column("arm", pa.string(), "arm; in a grid ARM_fFRAMES_DTYPE, or ARM_DATA_fFRAMES_DTYPE"),
        Column("dataset", pa.string(), "data set that was scored"),
        Column("seed", pa.int64(), "seed; null: all of them together", True),
        Column("model", pa.string(), "s2 or clip"),
        Column("size", pa.string(), "model size", True),
        Column("head", pa.string(), "sim, dsl or match"),
        Column("k", pa.int64(), "candidates that match re-scores", True),
        Column("frames", pa.int64(), "frames taken from a clip", True),
        Column("dtype", pa.string(), "arithmetic"),
        Column("max_text_len", pa.int64(), "tokens of a text that are read", True),
        Column("language", pa.string(), "of the captions"),
        Column("text_class", pa.string(), "short or long"),
        Column("direction", pa.string(), "t2v or v2t"),
        Column("trained", pa.bool_(), "the model was trained on this language and length; null: not known", True),
        Column("n", pa.int64(), "queries"),
        Column("r1", pa.float64(), "R@1, percent"),
        Column("r1_low", pa.float64(), "its 95 % interval"),
        Column("r1_high", pa.float64(), "its 95 % interval"),
        Column("query_ms_p50", pa.float64(), "milliseconds of a query, warm, alone", True),
        Column("query_ms_p95", pa.float64(), "95th percentile", True),
        Column("index_bytes_per_video", pa.float64(), "bytes in the index", True),
        Column("machine", pa.string(), "where it was measured", True),
        Column("on_front", pa.bool_(), "no cell of the same question is at least as good, quick and small"),
    ),
)
TABLES = (MANIFEST, CAPTIONS, PAIRS, FRAME_SHARD, FRAMES, SCORES, CURVES, CELLS)


def features(num_tokens: int, width: int, pooled: int, dtype: str) -> Table:
    """The table of token features [num_tokens, width] and pooled features [pooled]; sizes are part of the type."""
    tokens = _tokens(num_tokens, width, dtype)
    return Table(
        "features",
        2,
        "One row a clip: what the trunk gives for it.",
        (
            Column("clip_id", pa.string(), "the clip"),
            tokens,
            Column("pooled", pa.list_(pa.float32(), pooled), f"[{pooled}], before projection"),
        ),
    )


def views(num_tokens: int, width: int, dtype: str) -> Table:
    """The table of augmented views beside the features; a table of its own, so that all else reads plain clips."""
    tokens = _tokens(num_tokens, width, dtype)
    return Table(
        "views",
        2,
        "Beside `features` where `features.views` is above 1: one row a training clip and augmented view of it.",
        (
            Column("clip_id", pa.string(), "the clip"),
            Column("view", pa.int32(), "from 1; view 0 is the plain clip, in `features`"),
            tokens,
        ),
    )


def _tokens(num_tokens: int, width: int, dtype: str) -> Column:
    """Bytes, which Parquet writes and reads as they are: lists of numbers take twice as long."""
    size = num_tokens * width * (4 if dtype == "float32" else 2)
    return Column("tokens", pa.binary(size), f"[{num_tokens}, {width}] {dtype}, C order, little-endian")


def packed(numbers: np.ndarray) -> pa.FixedSizeBinaryArray:
    """[B, ...] of any type -> the bytes of each of the B."""
    numbers = np.ascontiguousarray(numbers)
    kind = pa.binary(numbers.nbytes // max(1, len(numbers)))
    return pa.FixedSizeBinaryArray.from_buffers(kind, len(numbers), [None, pa.py_buffer(numbers)])


def unpacked(column: pa.ChunkedArray) -> np.ndarray:
    """The bytes of a column of `packed` numbers, one value after the other: uint8 [bytes]; not to be written to."""
    chunks = [
        np.frombuffer(chunk.buffers()[1], np.uint8)[chunk.offset * (n := chunk.type.byte_width) :][: len(chunk) * n]
        for chunk in column.chunks
    ]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)


def check(table: pa.Table, kind: Table) -> pa.Table:
    """The table cast to its schema; WorkError naming the column when one is missing or null where it must not be."""
    missing = [c.name for c in kind.columns if c.name not in table.column_names]
    if missing:
        raise WorkError(f"{kind.name} table lacks {', '.join(missing)}")
    for c in kind.columns:
        if not c.nullable and table.column(c.name).null_count:
            raise WorkError(f"{kind.name}.{c.name} has {table.column(c.name).null_count} nulls; it may have none")
    return table.select([c.name for c in kind.columns]).cast(kind.schema())


def write(path: Path, rows: pa.Table | list[dict[str, Any]], kind: Table, **options: Any) -> int:
    """Write a checked table as Parquet; returns the number of rows."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(rows, schema=kind.schema())
    pq.write_table(check(table, kind), path, **{"compression": "zstd", "write_page_checksum": True, **options})
    return int(table.num_rows)


class File(pq.ParquetFile):  # type: ignore[misc]  # pyarrow has no types
    """A table's file; what is not as it was written is `Damaged` wherever it is read."""

    def __init__(self, path: Path) -> None:
        check_file(path)
        self.path = path
        with pages(path):
            super().__init__(path, page_checksum_verification=True)

    def read(self, *args: Any, **options: Any) -> pa.Table:
        """The whole table, or some of its columns."""
        with pages(self.path):
            return super().read(*args, **options)

    def read_row_group(self, *args: Any, **options: Any) -> pa.Table:
        """One row group."""
        with pages(self.path):
            return super().read_row_group(*args, **options)


def opened(path: Path, kind: Table | str) -> File:
    """The file of a table, not yet read, refusing another kind or version of it."""
    name, version = (kind, None) if isinstance(kind, str) else (kind.name, kind.version)
    file = File(path)
    meta = {k.decode(): v.decode() for k, v in (file.schema_arrow.metadata or {}).items()}
    if meta.get("iv.table") != name or (version is not None and meta.get("iv.version") != str(version)):
        found = f"{meta.get('iv.table')} version {meta.get('iv.version')}"
        raise WorkError(f"{path} holds {found}, not {name} version {version}; delete its artifact and run again")
    return file


def read(path: Path, kind: Table | str, columns: list[str] | None = None) -> pa.Table:
    """Read a table, refusing another kind or version of it."""
    return opened(path, kind).read(columns=columns)


def rows(path: Path, kind: Table | str) -> Iterator[dict[str, Any]]:
    """The rows of a table as dicts."""
    yield from read(path, kind).to_pylist()
