"""Whether tokens of a frozen trunk are kept or computed again at each step: by bytes, epochs, disk and trunk speed."""

import json
import math
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from ivcore.config import TrainConfig
from ivcore.store.artifacts import Artifact
from ivcore.store.durable import put

PROBE_BYTES = 32 << 20  # written and read to time the disk
GB = 1e9
SMALL_GB = 1.0  # kept without a question: held in memory as it is trained on


@dataclass(frozen=True)
class Costs:
    """num_clips stored, clips_read by all phases together, bytes and trunk seconds of a view, bytes a second."""

    num_clips: int
    clips_read: int
    clip_bytes: float
    trunk_s: float
    write_bps: float
    read_bps: float
    views: int = 1  # stored of each clip

    @property
    def epochs(self) -> float:
        """Times that the phases read every clip."""
        return self.clips_read / self.num_clips

    @property
    def even_epochs(self) -> float:
        """From how many epochs on keeping is quicker; infinite where reading a clip takes longer than its trunk."""
        saved = self.trunk_s - self.clip_bytes / self.read_bps
        return self.views * (self.trunk_s + self.clip_bytes / self.write_bps) / saved if saved > 0 else math.inf


def keep(costs: Costs) -> tuple[bool, str]:
    """(whether to keep the tokens, why in one line).

    >>> keep(Costs(num_clips=9000, clips_read=27000, clip_bytes=5.8e6, trunk_s=0.02, write_bps=2e8, read_bps=1e9))
    (False, '52 GB for 3 epochs: recompute; from 4 epochs on: cache')
    >>> keep(Costs(num_clips=9000, clips_read=54000, clip_bytes=5.8e6, trunk_s=0.02, write_bps=2e8, read_bps=1e9))
    (True, '52 GB for 6 epochs: cache; below 4 epochs: recompute')
    """
    even = costs.even_epochs
    size = costs.num_clips * costs.views * costs.clip_bytes / GB
    what = f"{size:.{0 if size >= 10 else 2}f} GB for {costs.epochs:.3g} epochs"
    if math.isinf(even):
        return False, f"{what}: recompute; a clip takes longer to read than to compute"
    turn = f"{math.ceil(even)} epochs"
    if costs.epochs >= even:
        return True, f"{what}: cache; below {turn}: recompute"
    return False, f"{what}: recompute; from {turn} on: cache"


def clips_read(train: TrainConfig, num_clips: int) -> int:
    """Clips that the phases with a frozen trunk read, all together."""
    total = 0.0
    for stage in (train.s2, train.clip):
        for phase in stage.phases:
            if phase.reads_features:
                total += phase.steps * stage.batch_size if phase.steps else phase.epochs * num_clips
    return round(total)


def measure(frames: Artifact, size: str, clip_bytes: float, train: TrainConfig, home: Path, views: int = 1) -> Costs:
    """The costs here: the disk of `home` timed, the trunk's arithmetic over the speed of a matrix product.

    Both are timed once a workspace and kind of arithmetic, so that the next night decides as this one did.
    """
    from ivcore.models import s2_config
    from ivcore.models.flops import trunk

    flop = trunk(s2_config(size, 1000 if size == "tiny" else None).vision_shape())
    place = home / "cache" / "speeds" / f"{train.device_type}-{train.dtype}-{train.threads}.json"
    if not place.exists():
        put(place, json.dumps([matmul_speed(train), *disk_speed(home)]))
    multiplied, write, read = json.loads(place.read_text())
    reads = clips_read(train, frames.rows)
    return Costs(frames.rows, reads, clip_bytes, flop / multiplied, write, read, views)


def disk_speed(home: Path) -> tuple[float, float]:
    """Bytes a second (written and fsynced, read with the page cache dropped) on the disk of `home`."""
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=home) as file:
        block = os.urandom(1 << 20)
        start = time.perf_counter()
        for _ in range(PROBE_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        written = time.perf_counter() - start
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        file.seek(0)
        start = time.perf_counter()
        while file.read(1 << 20):
            pass
        return PROBE_BYTES / written, PROBE_BYTES / (time.perf_counter() - start)


def matmul_speed(train: TrainConfig) -> float:
    """Operations a second of a square product in the arithmetic of training; a trunk reaches somewhat less."""
    import torch

    from ivcore.models import device

    on = device.choose(train.device)
    edge = 1024 if on.type == "cpu" else 8192  # a small product tells how fast a GPU is launched, not how fast it is
    x = torch.ones(edge, edge, device=on, dtype=getattr(torch, train.dtype))
    best = math.inf
    for _ in range(4):  # the first wakes the library
        start = time.perf_counter()
        (x @ x).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * edge**3 / best
