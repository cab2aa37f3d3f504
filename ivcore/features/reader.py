"""Token features and pooled vectors read back from a features artifact.

Shapes: B clips, L tokens of a clip, C channels, E pooled vector.
"""

import collections
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ivcore.store import schemas
from ivcore.store.artifacts import Artifact
from ivcore.video.frames import rows_of

Spot = tuple[int, int, int]  # file, row group and row in it
CACHE_BYTES = 2 << 30  # of token features kept in memory


class Features:
    """The trunk's tokens and pooled vectors of a features artifact; tokens are read when a batch needs them."""

    def __init__(self, artifact: Artifact) -> None:
        """Reads clip_ids and pooled vectors; the facts num_tokens, width, pooled and views give the sizes."""
        facts = artifact.record()["facts"]
        self._dtype = getattr(torch, artifact.record()["config"].get("dtype", "float16"))
        self._files = [schemas.opened(artifact.path / "features.parquet", "features")]
        table = self._files[0].read(columns=["clip_id", "pooled"])
        self.clip_ids: list[str] = table.column("clip_id").to_pylist()
        self.shape = (facts["num_tokens"], facts["width"])  # L, C
        self._pooled = _array(table.column("pooled")).reshape(-1, facts["pooled"])
        self._row_of = {clip_id: n for n, clip_id in enumerate(self.clip_ids)}
        self._spots = {(row, 0): spot for row, spot in enumerate(self._spots_of(0))}  # by row and view
        self.num_views: int = facts.get("views", 1)
        if self.num_views > 1:
            self._files.append(schemas.opened(artifact.path / "views.parquet", "views"))
            named = self._files[1].read(columns=["clip_id", "view"]).to_pylist()
            for found, spot in zip(named, self._spots_of(1), strict=True):
                self._spots[self._row_of[found["clip_id"]], found["view"]] = spot
        self._groups: collections.OrderedDict[tuple[int, int], Tensor] = collections.OrderedDict()
        self._held = 0  # bytes

    def rows_of(self, clip_ids: Sequence[str]) -> list[int]:
        """Row numbers of clips; WorkError naming the first that has no features."""
        return rows_of(self._row_of, clip_ids, "featurized")

    def holds(self, clip_id: str, view: int) -> bool:
        """Whether this view of the clip is there."""
        return (self._row_of.get(clip_id), view) in self._spots

    def tokens(self, rows: Sequence[int], views: Sequence[int] = ()) -> Tensor:
        """float32 [B, L, C], whatever type they are stored in; `views`: one a row; none: plain clips."""
        wanted = zip(rows, views or [0] * len(rows), strict=True)
        spots = [self._spots[place] for place in wanted]
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
        tokens = torch.frombuffer(bytearray(schemas.unpacked(column)), dtype=self._dtype).view(-1, *self.shape)
        self._held += tokens.nbytes
        while self._groups and self._held > CACHE_BYTES:
            self._held -= self._groups.popitem(last=False)[1].nbytes
        self._groups[group] = tokens
        return tokens


def _array(column: pa.ChunkedArray) -> np.ndarray:
    """The values of a column of fixed-size lists, one after the other."""
    return np.concatenate([chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks])
