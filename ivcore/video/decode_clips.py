"""Clips to frames, each by a worker process that can be lost."""

import dataclasses
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Any

from ivcore.config import FramesConfig
from ivcore.video import disk_plan, pool
from ivcore.video.decode_file import Decoded, Task, decode_file
from ivcore.video.sampling import Sampling

OTHER_DECODER = {"auto": "other", "pyav": "sequential"}  # what to try once when a worker was lost
PIXELS_A_SECOND = 5e8  # of one core that decodes every frame
LONGEST = 10.0  # times the deadline that a long video may take


def decode_clips(
    tasks: Iterable[Task], num: int, frames: FramesConfig, spent: Callable[[float], None] = lambda cpu_s: None
) -> Generator[Decoded, None, None]:
    """What became of each of `num` clips, in order; where a worker was lost, the other decoder has a try.

    `spent` is told the CPU seconds of the workers, a clip at a time.
    """
    workers = max(min(pool.num_workers(frames.workers), num), 1)
    size = disk_plan.clip_bytes(frames)
    for got in pool.run(decode_file, tasks, workers, lambda task: task.deadline_s, _by_other_decoder, spent, size):
        yield Decoded(None, error=got.reason, detail=got.detail) if isinstance(got, pool.Lost) else got


def task_of(root: Path, frames: FramesConfig, clip: dict[str, Any]) -> Task:
    """The task that decodes this row of the manifest."""
    pixels = (clip["duration_s"] or 0) * (clip["fps"] or 25) * (clip["width"] or 0) * (clip["height"] or 0)
    return Task(
        path=root / clip["path"],
        which=Sampling(frames.sampling, frames.num_frames, frames.fps, seed=clip["clip_id"], shift=frames.shift),
        size_px=frames.size_px,
        antialias=frames.resize == "bicubic-antialias",
        crop=frames.crop == "centre",
        decoder=frames.decoder,
        damaged=frames.damaged,
        start_s=clip["start_s"],
        end_s=clip["end_s"],
        deadline_s=min(frames.deadline_s + 5 * pixels / PIXELS_A_SECOND, LONGEST * frames.deadline_s),
    )


def _by_other_decoder(task: Task) -> Task | None:
    """The same clip for the other decoder; None where there is none."""
    other = OTHER_DECODER.get(task.decoder)
    return dataclasses.replace(task, decoder=other) if other else None
