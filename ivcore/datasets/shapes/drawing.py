"""A scene as pictures, and the pictures as an mp4; the same scene and seed give the same bytes.

T frames, H = W = size; lengths are in units of a 64th of the size.
"""

import zlib
from pathlib import Path

import av
import numpy as np

from ivcore.config import SyntheticConfig
from ivcore.datasets.shapes.scenes import Clip, Object, Scene

RGB = {
    "red": (230, 40, 40),
    "green": (40, 190, 60),
    "blue": (50, 90, 240),
    "yellow": (240, 220, 40),
    "white": (245, 245, 245),
    "purple": (200, 60, 220),
}
UNIT = 64
# Cell width and height, centres, travel in x and y and radius (least, most), by number of objects.
LAYOUT = {
    2: ((64, 32), ((32, 16), (32, 48)), (14.0, 5.0), (9.5, 11.0)),
    4: ((32, 32), ((16, 16), (48, 16), (16, 48), (48, 48)), (8.5, 8.5), (6.2, 7.2)),
}
DIRECTION = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SMALLEST = 0.45  # of the radius, where growing begins and shrinking ends


def draw(scene: Scene, size: int, num_frames: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [T, size, size, 3]: each object in its own cell, moving through its centre half way."""
    (cell_w, cell_h), centres, travel, (r_min, r_max) = LAYOUT[len(scene)]
    scale = size / UNIT
    background = rng.integers(15, 50, 3)
    picture = np.empty((num_frames, size, size, 3), np.uint8)
    picture[:] = background
    for which, (cx, cy) in zip(scene, centres):
        x0, x1 = round((cx - cell_w / 2) * scale), round((cx + cell_w / 2) * scale)
        y0, y1 = round((cy - cell_h / 2) * scale), round((cy + cell_h / 2) * scale)
        jitter = rng.uniform(-1, 1, 2)
        radius = rng.uniform(r_min, r_max)
        alpha = _alpha(which, (x0, x1, y0, y1), (cx + jitter[0], cy + jitter[1]), travel, radius, scale, num_frames)
        colour = np.asarray(RGB[which[0]], np.float32) - background
        blended = alpha[..., None] * colour.astype(np.float32) + (background + 0.5).astype(np.float32)
        picture[:, y0:y1, x0:x1] = blended.astype(np.uint8)
    return picture  # [T, H, W, 3]


def _alpha(
    which: Object,
    cell: tuple[int, int, int, int],
    centre: tuple[float, float],
    travel: tuple[float, float],
    radius: float,
    scale: float,
    num_frames: int,
) -> np.ndarray:
    """float32 [T, h, w]: how much of each pixel of the cell the object covers, 0-1."""
    x0, x1, y0, y1 = cell
    _, shape, motion = which
    time = np.linspace(-1, 1, num_frames, dtype=np.float32)[:, None, None]  # [T, 1, 1]
    dx, dy = DIRECTION.get(motion, (0, 0))
    ramp = (time + 1) / 2 if motion == "grow" else (1 - time) / 2
    size = SMALLEST + (1 - SMALLEST) * ramp if motion in ("grow", "shrink") else np.ones_like(time)
    r = (radius * scale * size).astype(np.float32)
    x = np.arange(x0, x1, dtype=np.float32)[None, None, :] + 0.5 - np.float32(centre[0] * scale)
    y = np.arange(y0, y1, dtype=np.float32)[None, :, None] + 0.5 - np.float32(centre[1] * scale)
    x, y = x - np.float32(dx * travel[0] * scale) * time, y - np.float32(dy * travel[1] * scale) * time
    return np.clip(0.5 - _distance(shape, x, y, r), 0, 1)  # one pixel of soft edge


def _distance(shape: str, x: np.ndarray, y: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Distance in pixels from the outline, negative inside; x [T, 1, w], y [T, h, 1], r [T, 1, 1] -> [T, h, w]."""
    out: np.ndarray
    if shape == "circle":
        out = np.sqrt(x * x + y * y) - r
    elif shape == "square":
        out = np.maximum(abs(x), abs(y)) - 0.85 * r
    elif shape == "cross":
        x, y = abs(x), abs(y)
        out = np.minimum(np.maximum(x - r, y - 0.32 * r), np.maximum(x - 0.32 * r, y - r))
    else:  # triangle, apex up
        slope = np.float32(1.8 / np.hypot(1.8, 1.0)), np.float32(1.0 / np.hypot(1.8, 1.0))
        out = np.maximum(y - 0.8 * r, abs(x) * slope[0] - (y + r) * slope[1])
    return out


def write_clips(folder: Path, clips: list[Clip], config: SyntheticConfig) -> int:
    """Draw and encode clips to `folder`/path(clip); returns how many."""
    for clip in clips:
        rng = np.random.default_rng([config.seed, zlib.crc32(clip.clip_id.encode())])
        encode(folder / path(clip), draw(clip.scene, config.size_px, config.num_frames, rng), config.fps)
    return len(clips)


def path(clip: Clip) -> str:
    """Where a clip lies below the root; at most 500 files a folder."""
    return f"{clip.split}/{int(clip.clip_id.rpartition('-')[2]) // 500:03d}/{clip.clip_id}.mp4"


def encode(path: Path, frames: np.ndarray, fps: int) -> None:
    """Write uint8 frames [T, H, W, 3] as H.264 in mp4; one thread, so that the bytes do not depend on the machine."""
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "crf": "18", "threads": "1"}
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
