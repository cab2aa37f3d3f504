"""What training and scoring read: frames, token features and captions as tensors and lists.

B clips, T frames, H by W pixels, C colours or channels, L tokens of a clip.
"""

import collections
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ivcore import schemas
from ivcore.data.stream import Stream
from ivcore.data.views import PLAIN, Views
from ivcore.errors import WorkError
from ivcore.store import Artifact, Store

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
Spot = tuple[int, int, int]  # file, row group and row in it
CACHE_BYTES = 2 << 30  # of frame shards, and of token features, kept in memory; the demo's are 110 MB together


def normalise(frames: Tensor) -> Tensor:
    """uint8 [B, T, H, W, C] -> float32 [B, T, C, H, W], scaled to 0-1, less the mean, over the deviation."""
    if frames.ndim != 5 or frames.shape[-1] != 3 or frames.dtype != torch.uint8:
        raise ValueError(f"normalise wants uint8 [B, T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    mean, std = frames.new_tensor(MEAN, dtype=torch.float32), frames.new_tensor(STD, dtype=torch.float32)
    return ((frames.permute(0, 1, 4, 2, 3).float() / 255) - mean[:, None, None]) / std[:, None, None]


class Frames:
    """The decoded clips of a frames artifact, in manifest order, and their augmented views."""

    def __init__(self, store: Store, artifact: Artifact, views: Views = PLAIN) -> None:
        """Only the index is read now; shards are read when a batch needs them."""
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
        self._spots = [(r["shard"], r["row"]) for r in rows]
        self._row_of = {clip_id: n for n, clip_id in enumerate(self.clip_ids)}
        self._shards: collections.OrderedDict[str, list[np.ndarray]] = collections.OrderedDict()

    def rows_of(self, clip_ids: Sequence[str]) -> list[int]:
        """Row numbers of clips; WorkError naming the first that was not decoded."""
        return _rows_of(self._row_of, clip_ids, "decoded")

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
            for n, row in enumerate(rows):
                shard, spot = self._spots[row]
                out[n] = self._shard(shard)[spot]
        for n, (row, view) in enumerate(zip(rows, views, strict=True) if views else ()):
            out[n] = self._views.cut(out[n], self.clip_ids[row], view, self._antialias)
        return torch.from_numpy(out)  # [B, T, H, W, C]

    def _shard(self, id: str) -> list[np.ndarray]:
        """The clips of a shard, uint8 [T, H, W, C] each; the least used shard makes room."""
        if id in self._shards:
            self._shards.move_to_end(id)
            return self._shards[id]
        table = schemas.read(self.store.get(id).path / "frames.parquet", schemas.FRAME_SHARD, ["frames"])
        clips = (np.frombuffer(v.as_buffer(), np.uint8) for chunk in table.column("frames").chunks for v in chunk)
        shard = [clip.reshape(-1, *self.shape[1:]) for clip in clips]  # views: a batch is filled by the only copy
        room = CACHE_BYTES - len(shard) * math.prod(self.shape)
        while self._shards and sum(map(len, self._shards.values())) * math.prod(self.shape) > room:
            self._shards.popitem(last=False)
        self._shards[id] = shard
        return shard


class Features:
    """The trunk's tokens and pooled vectors of a features artifact; tokens are read when a batch needs them."""

    def __init__(self, artifact: Artifact) -> None:
        """Reads clip_ids and pooled vectors; the facts num_tokens, width, pooled and views give the sizes."""
        facts = artifact.record()["facts"]
        self._files = [schemas.opened(artifact.path / "features.parquet", "features")]
        table = self._files[0].read(columns=["clip_id", "pooled"])
        self.clip_ids: list[str] = table.column("clip_id").to_pylist()
        self.shape = (facts["num_tokens"], facts["width"])  # L, C
        self._pooled = _array(table.column("pooled")).reshape(-1, facts["pooled"])
        self._row_of = {clip_id: n for n, clip_id in enumerate(self.clip_ids)}
        self._spots = self._spots_of(0)
        self._others: dict[tuple[int, int], Spot] = {}  # by row and view; the plain views are those above
        self.num_views: int = facts.get("views", 1)
        if self.num_views > 1:
            self._files.append(schemas.opened(artifact.path / "views.parquet", "views"))
            named = self._files[1].read(columns=["clip_id", "view"]).to_pylist()
            for found, spot in zip(named, self._spots_of(1), strict=True):
                self._others[self._row_of[found["clip_id"]], found["view"]] = spot
        self._groups: collections.OrderedDict[tuple[int, int], Tensor] = collections.OrderedDict()
        self._held = 0  # bytes

    def rows_of(self, clip_ids: Sequence[str]) -> list[int]:
        """Row numbers of clips; WorkError naming the first that has no features."""
        return _rows_of(self._row_of, clip_ids, "featurized")

    def holds(self, clip_id: str, view: int) -> bool:
        """Whether this view of the clip is there."""
        row = self._row_of.get(clip_id)
        return row is not None and (view == 0 or (row, view) in self._others)

    def tokens(self, rows: Sequence[int], views: Sequence[int] = ()) -> Tensor:
        """float32 [B, L, C], whatever type they are stored in; `views`: one a row; none: plain clips."""
        wanted = zip(rows, views or [0] * len(rows), strict=True)
        spots = [self._others[row, view] if view else self._spots[row] for row, view in wanted]
        out = torch.empty(len(rows), *self.shape)
        for n in sorted(range(len(rows)), key=lambda n: spots[n]):  # so that a batch reads a row group once
            file, group, row = spots[n]
            out[n] = self._group(file, group)[row]
        return out  # [B, L, C]

    def pooled(self, rows: Sequence[int]) -> Tensor:
        """float32 [B, E]."""
        return torch.from_numpy(self._pooled[list(rows)]).float()

    def _spots_of(self, file: int) -> list[Spot]:
        meta = self._files[file].metadata
        return [(file, g, row) for g in range(meta.num_row_groups) for row in range(meta.row_group(g).num_rows)]

    def _group(self, file: int, number: int) -> Tensor:
        """The clips of a row group as they are stored, [rows, L, C]; the least used groups make room."""
        group = file, number
        if group in self._groups:
            self._groups.move_to_end(group)
            return self._groups[group]
        column = self._files[file].read_row_group(number, columns=["tokens"]).column(0)
        tokens = torch.from_numpy(_array(column)).view(-1, *self.shape)
        self._held += tokens.nbytes
        while self._groups and self._held > CACHE_BYTES:
            self._held -= self._groups.popitem(last=False)[1].nbytes
        self._groups[group] = tokens
        return tokens


class Captions:
    """Captions and clips of a manifest artifact, without the clips whose file cannot be used."""

    def __init__(self, manifest: Artifact) -> None:
        columns = ["clip_id", "split", "family", "media", "weight", "error"]
        clips = schemas.read(manifest.path / "manifest.parquet", schemas.MANIFEST, columns).to_pylist()
        self.task: str = manifest.record()["facts"].get("card", {}).get("task", "retrieval")
        self._clips: dict[str, dict[str, Any]] = {c["clip_id"]: c for c in clips if c["error"] is None}
        self._pairs: dict[str, list[tuple[str, bool]]] = collections.defaultdict(list)
        path = manifest.path / "pairs.parquet"
        for pair in schemas.rows(path, schemas.PAIRS) if path.exists() else ():
            if pair["clip_id"] in self._clips:
                self._pairs[pair["caption_id"]].append((pair["clip_id"], pair["relevant"]))
        captions = list(schemas.rows(manifest.path / "captions.parquet", schemas.CAPTIONS))
        self._options = [c for c in captions if not c["clip_id"]]
        for caption in captions:  # a caption of several clips goes to the next one where its own cannot be used
            others = self._pairs.get(caption["caption_id"], ())
            if caption["clip_id"] and caption["clip_id"] not in self._clips and others:
                caption["clip_id"] = others[0][0]
        self._captions = [c for c in captions if c["clip_id"] in self._clips]

    def also(self, caption_id: str) -> list[str]:
        """clip_ids that a caption is true of, beside the one of `texts`; most have none."""
        return [clip_id for clip_id, relevant in self._pairs.get(caption_id, ()) if relevant]

    def options(self, language: str, text_class: str) -> list[tuple[str, str, list[tuple[str, bool]]]]:
        """Classes and options in order of caption_id: (caption_id, caption, [(clip_id, whether it is true of it)])."""
        return [
            (c["caption_id"], c["caption"], self._pairs.get(c["caption_id"], []))
            for c in self._options
            if (c["language"], c["text_class"]) == (language, text_class)
        ]

    def texts(self, language: str, text_class: str, split: str) -> list[tuple[str, str, str]]:
        """(caption_id, clip_id, caption) in the order of caption_id."""
        return [
            (c["caption_id"], c["clip_id"], c["caption"])
            for c in self._captions
            if (c["language"], c["text_class"]) == (language, text_class)
            and self._clips[c["clip_id"]]["split"] == split
        ]

    def clips(self, split: str) -> list[str]:
        """clip_ids of a split, in manifest order."""
        return [clip_id for clip_id, clip in self._clips.items() if clip["split"] == split]

    def media(self, clip_id: str) -> str:
        """video or image."""
        return str(self._clips[clip_id]["media"])

    def weight(self, clip_id: str) -> int:
        """Times the clip comes by in an epoch."""
        return int(self._clips[clip_id]["weight"])

    def family(self, clip_id: str) -> str:
        """The family of a clip: itself and its near-twins."""
        return str(self._clips[clip_id]["family"])


def _rows_of(row_of: dict[str, int], clip_ids: Sequence[str], what: str) -> list[int]:
    missing = next((c for c in clip_ids if c not in row_of), None)
    if missing is not None:
        raise WorkError(f"clip {missing!r} was not {what}; take clips from .clip_ids")
    return [row_of[c] for c in clip_ids]


def _array(column: pa.ChunkedArray) -> np.ndarray:
    """The values of a column of fixed-size lists, one after the other."""
    return np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
