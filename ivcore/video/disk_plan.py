"""What frames and features will take on the disk: said before the work begins, refused where there is no room."""

import logging
import shutil
from pathlib import Path

from ivcore.config import FramesConfig
from ivcore.config.values import size_values
from ivcore.errors import WorkError
from ivcore.store.artifacts import Artifact

GB = 1e9
SPARE = 0.5  # GB that stay free beside what is planned
BYTES = {"float16": 2, "float32": 4}
said = logging.getLogger("iv.plan")


def clip_bytes(frames: FramesConfig) -> int:
    """Bytes of the frames of a clip, before compression."""
    return frames.num_frames * frames.size_px**2 * 3


def frames_gb(num_clips: int, frames: FramesConfig) -> float:
    """Gigabytes of the frames of so many clips, before compression."""
    return num_clips * clip_bytes(frames) / GB


def features_gb(num_clips: int, num_frames: int, size_px: int, size: str, dtype: str, views: int = 1) -> float:
    """Gigabytes of the features of so many clips by a tower of ivcore/models/sizes.

    A clip has one token a patch and the class token, each of the tower's width, and a pooled vector; as many times as
    it has views, which is too much by those that only training clips have.
    """
    tower = size_values(size)["vision"]  # the file alone: who plans a decode does without torch
    side = size_px // tower["patch_size"]
    tokens = 1 + num_frames // tower.get("tubelet_size", 1) * side**2
    each: int = tokens * tower["width"] * BYTES[dtype] + tower["pool_width"] * 4
    return num_clips * views * each / GB


def features_of(frames: Artifact, encoder: Artifact, dtype: str, views: int = 1) -> float | None:
    """Gigabytes of the features of these frames by this s2 or clip checkpoint; None where its size is not stated."""
    facts = frames.record()["facts"]
    size = encoder.record()["config"].get("model", {}).get("size")
    if size is None or "num_frames" not in facts:
        return None
    return features_gb(frames.rows, facts["num_frames"], facts["size_px"], size, dtype, views)


def check(
    what: str,
    num_clips: int,
    wanted_gb: float,
    home: Path,
    budget_gb: float | None = None,
    later_gb: float = 0.0,
    later_must: bool = False,
) -> None:
    """Say what is planned, and what features will take after it.

    Raises:
        WorkError: it is over the budget, or (with the features, if they must be) over what the disk has free.
    """
    free_gb = shutil.disk_usage(home).free / GB
    plan = f"{what} of {num_clips} clips: at most {wanted_gb:.2f} GB"
    plan += f", then features of a trunk: {later_gb:.2f} GB" if later_gb else ""
    if budget_gb is not None and wanted_gb > budget_gb:
        raise WorkError(f"{plan}, and frames.disk_gb allows {budget_gb:g}; allow more, or take fewer or smaller frames")
    if wanted_gb + later_must * later_gb + SPARE > free_gb:
        raise WorkError(f"{plan}, and the disk of {home} has {free_gb:.1f} free; make room or give --home elsewhere")
    said.info("%s, %.1f GB free", plan, free_gb)
