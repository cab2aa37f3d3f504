"""What a user brings: a folder of videos and a csv of captions."""

import csv
from pathlib import Path

import numpy as np

from ivcore.datasets.shapes.drawing import encode


def make(root: Path, num: int = 20) -> Path:
    """Videos of a square that turns dark, each of another colour, and captions in two languages without a split."""
    with (root / "captions.csv").open("w", newline="") as f:
        table = csv.writer(f)
        table.writerow(["path", "caption", "language"])
        for n in range(num):
            video = np.zeros((8, 48, 64, 3), np.uint8)
            video[:, 8:40, 8:40] = np.random.default_rng(n).integers(40, 255, 3)
            video[4:] //= 2
            encode(root / f"{n:02}.mp4", video, 4)
            table.writerow([f"{n:02}.mp4", f"square number {n}, which turns dark", "en"])
            table.writerow([f"{n:02}.mp4", f"cuadrado número {n}", "es"])
    return root
