"""Frames that are not kept: the clips of a batch are decoded again each time, at the numbers the index states."""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ivcore.config import FramesConfig
from ivcore.errors import WorkError
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store
from ivcore.video.decode_clips import decode_clips, task_of


class Stream:
    """The clips of a frames artifact that was made with frames.cache = false."""

    def __init__(self, store: Store, artifact: Artifact, index: list[dict[str, Any]]) -> None:
        """`index`: the artifact's rows that have no error."""
        record = artifact.record()
        self._config = FramesConfig.model_validate(record["config"])
        root = Path(record["measured"]["root"])
        manifest = store.get(record["inputs"]["manifest"])
        clips = {c["clip_id"]: c for c in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)}
        tasks = (task_of(root, self._config, clips[row["clip_id"]]) for row in index)
        self._tasks = [
            dataclasses.replace(task, which=tuple(row["frame_index"]), start_s=None, end_s=None)
            for task, row in zip(tasks, index)
        ]

    def frames(self, rows: Sequence[int]) -> Iterator[np.ndarray]:
        """uint8 [T, H, W, C] of each row, in order; WorkError when one that could be decoded before cannot be now."""
        tasks = [self._tasks[row] for row in rows]
        with contextlib.closing(decode_clips(tasks, len(tasks), self._config)) as results:
            for task, got in zip(tasks, results):
                if got.frames is None:
                    why = f"{got.error}, {got.detail}"
                    raise WorkError(f"{task.path} could be decoded before and cannot be now: {why}")
                yield got.frames
