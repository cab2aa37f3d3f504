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
from ivcore.video import disk_plan, pool
from ivcore.video.decode import other_decoder, task_of
from ivcore.video.decode_file import decode_file


class Stream:
    """The clips of a frames artifact that was made with frames.cache = false."""

    def __init__(self, store: Store, artifact: Artifact, index: list[dict[str, Any]]) -> None:
        """`index`: the artifact's rows that have no error."""
        record = artifact.record()
        config = FramesConfig.model_validate(record["config"])
        self._clip_bytes = disk_plan.clip_bytes(config)
        root = Path(record["measured"]["root"])
        manifest = store.get(record["inputs"]["manifest"])
        clips = {c["clip_id"]: c for c in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)}
        tasks = (task_of(root, config, clips[row["clip_id"]]) for row in index)
        self._tasks = [
            dataclasses.replace(task, which=tuple(row["frame_index"]), start_s=None, end_s=None)
            for task, row in zip(tasks, index)
        ]

    def frames(self, rows: Sequence[int]) -> Iterator[np.ndarray]:
        """uint8 [T, H, W, C] of each row, in order; WorkError when one that could be decoded before cannot be now."""
        tasks = [self._tasks[row] for row in rows]
        workers = max(min(pool.num_workers(0), len(tasks)), 1)
        results = pool.run(
            decode_file, tasks, workers, lambda task: task.deadline_s, other_decoder, array_bytes=self._clip_bytes
        )
        with contextlib.closing(results):
            for task, got in zip(tasks, results):
                if isinstance(got, pool.Lost) or got.frames is None:
                    reason = got.reason if isinstance(got, pool.Lost) else got.error
                    raise WorkError(f"{task.path} could be decoded before and cannot be now: {reason}, {got.detail}")
                yield got.frames
