"""Frames read back from their shards, as tensors for the vision tower.

Shapes: B clips, T frames, H by W pixels, C colours.
"""

import bisect
import collections
import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ivcore.errors import WorkError
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store
from ivcore.video.stream import Stream
from ivcore.video.views import PLAIN, Views

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
CACHE_BYTES = 2 << 30  # of frames kept in memory; the demo's are 110 MB together with its token features


def normalise(frames: Tensor) -> Tensor:
    """uint8 [B, T, H, W, C] -> float32 [B, T, C, H, W], scaled to 0-1, less the mean, over the deviation."""
    if frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(f"normalise wants uint8 [B, T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    mean, std = frames.new_tensor(MEAN, dtype=torch.float32), frames.new_tensor(STD, dtype=torch.float32)
    return ((frames.permute(0, 1, 4, 2, 3).float() / 255) - mean[:, None, None]) / std[:, None, None]


class Frames:
    """The decoded clips of a frames artifact, in manifest order, and their augmented views."""

    def __init__(self, store: Store, artifact: Artifact, views: Views = PLAIN) -> None:
        """Only the index is read now; row groups of shards are read when a batch needs them."""
        rows = [r for r in schemas.rows(artifact.path / "index.parquet", schemas.FRAMES) if r["error"] is None]
        record = artifact.record()
        facts = record["facts"]
        self.store = store
        self.num_views, self._views = views.num, views
        self._antialias = record["config"].get("resize") != "bicubic"
        self.shape = (facts["num_frames"], facts["size_px"], facts["size_px"], 3)  # T, H, W, C
        # Of each row: T, or 1 of a still image.
        self.num_frames: list[int] = [len(r["frame_index"] or range(self.shape[0])) for r in rows]
        self.clip_ids: list[str] = [r["clip_id"] for r in rows]
        self._stream = Stream(store, artifact, rows) if facts.get("streamed") else None
        self._places = [(r["shard"], r["row"]) for r in rows]
        self._row_of = {clip_id: n for n, clip_id in enumerate(self.clip_ids)}
        self._starts: dict[str, list[int]] = {}  # of the row groups of a shard, by clip
        self._groups: collections.OrderedDict[tuple[str, int], list[np.ndarray]] = collections.OrderedDict()
        self._held = 0  # bytes

    def rows_of(self, clip_ids: Sequence[str]) -> list[int]:
        """Row numbers of clips; WorkError naming the first that was not decoded."""
        return rows_of(self._row_of, clip_ids, "decoded")

    def batch(self, rows: Sequence[int], views: Sequence[int] = ()) -> Tensor:
        """uint8 [B, T, H, W, C] of these rows, videos or still images (T = 1), not both; `views`: one a row."""
        num_frames = {self.num_frames[row] for row in rows}
        if len(num_frames) > 1:
            raise ValueError(f"a batch has clips of {sorted(num_frames)} frames; take videos or images")
        out = np.empty((len(rows), *(num_frames or self.shape[:1]), *self.shape[1:]), np.uint8)
        if self._stream is not None:
            for n, frames in enumerate(self._stream.frames(rows)):
                out[n] = frames
        else:
            for n in sorted(range(len(rows)), key=lambda n: self._places[rows[n]]):  # a row group is read once
                out[n] = self._clip(*self._places[rows[n]])
        for n, (row, view) in enumerate(zip(rows, views, strict=True) if views else ()):
            out[n] = self._views.cut(out[n], self.clip_ids[row], view, self._antialias)
        return torch.from_numpy(out)  # [B, T, H, W, C]

    def _clip(self, id: str, row: int) -> np.ndarray:
        """A clip of a shard, uint8 [T, H, W, C]; its row group is kept, and the least used ones make room."""
        if id not in self._starts:
            meta = self._open(id).metadata
            sizes = [meta.row_group(n).num_rows for n in range(meta.num_row_groups)]
            self._starts[id] = list(itertools.accumulate(sizes, initial=0))[:-1]
        number = bisect.bisect_right(self._starts[id], row) - 1
        spot = id, number
        if spot not in self._groups:
            column = self._open(id).read_row_group(number, columns=["frames"]).column(0)
            clips = (np.frombuffer(v.as_buffer(), np.uint8) for chunk in column.chunks for v in chunk)
            # Views: a batch is filled by the only copy.
            self._groups[spot] = [clip.reshape(-1, *self.shape[1:]) for clip in clips]
            self._held += _bytes(self._groups[spot])
            while self._held > CACHE_BYTES and len(self._groups) > 1:
                self._held -= _bytes(self._groups.popitem(last=False)[1])
        self._groups.move_to_end(spot)
        return self._groups[spot][row - self._starts[id][number]]

    def _open(self, id: str) -> pq.ParquetFile:
        return schemas.opened(self.store.get(id).path / "frames.parquet", schemas.FRAME_SHARD)


def _bytes(clips: list[np.ndarray]) -> int:
    return sum(clip.nbytes for clip in clips)


def rows_of(row_of: dict[str, int], clip_ids: Sequence[str], what: str) -> list[int]:
    """Row numbers of clips; WorkError naming the first that was not `what` (decoded, featurized)."""
    missing = next((c for c in clip_ids if c not in row_of), None)
    if missing is not None:
        raise WorkError(f"clip {missing!r} was not {what}; take clips from .clip_ids")
    return [row_of[c] for c in clip_ids]
