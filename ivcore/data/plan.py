"""What frames and features will take on the disk: said before the work begins, refused where there is no room."""

import logging
import shutil
from pathlib import Path
from typing import Any

from ivcore.config import FramesConfig
from ivcore.errors import WorkError
from ivcore.store import Artifact

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


def features_gb(frames: Artifact, encoder: Artifact, dtype: str) -> float | None:
    """Gigabytes of the features of these frames by this s2 or clip checkpoint; None where its size is not stated.

    A clip has one token a patch and the class token, each of the tower's width, and a pooled vector.
    """
    from ivcore.models import load_size

    facts = frames.record()["facts"]
    size = encoder.record()["config"].get("model", {}).get("size")
    if size is None or "num_frames" not in facts:
        return None
    tower: dict[str, Any] = load_size(size)["vision"]
    side = facts["size_px"] // tower["patch_size"]
    tokens = 1 + facts["num_frames"] // tower.get("tubelet_size", 1) * side**2
    return frames.rows * (tokens * tower["width"] * BYTES[dtype] + tower["pool_width"] * 4) / GB


def check(what: str, num_clips: int, wanted_gb: float, home: Path, budget_gb: float | None = None) -> None:
    """Say what is planned; WorkError when it is over the budget or over what the workspace's disk has free."""
    free_gb = shutil.disk_usage(home).free / GB
    plan = f"{what} of {num_clips} clips: at most {wanted_gb:.2f} GB"
    if budget_gb is not None and wanted_gb > budget_gb:
        raise WorkError(f"{plan}, and frames.disk_gb allows {budget_gb:g}; allow more, or take fewer or smaller frames")
    if wanted_gb + SPARE > free_gb:
        raise WorkError(f"{plan}, and the disk of {home} has {free_gb:.1f} free; make room or give --home elsewhere")
    said.info("%s, %.1f GB free", plan, free_gb)
