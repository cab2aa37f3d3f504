"""Videos whose frames are known, and small data sets of them."""

import json
from pathlib import Path

import av
import numpy as np

from ivcore import steps
from ivcore.config import DataConfig
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store
from ivcore.video.decode_file import Task
from ivcore.video.sampling import Sampling


def sequential(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def numbered(path: Path, num: int = 24, **muxer: str) -> None:
    """A video with B-frames whose frame n is a grey level of n."""
    with av.open(str(path), "w", options=muxer) as container:
        stream = container.add_stream("libx264", rate=12, options={"crf": "10", "g": "8", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(num):
            picture = np.full((48, 64, 3), (10 + 9 * n) % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def task(path: Path, decoder: str = "auto", num: int = 8, size: int = 32, **window: float) -> Task:
    return Task(path, Sampling("middle", num), size, decoder=decoder, **window)


def index(frames: Artifact) -> dict[str, dict]:
    return {r["clip_id"]: r for r in schemas.rows(frames.path / "index.parquet", schemas.FRAMES)}


def folder_of(root: Path, names: dict[str, str], tmp_path: Path) -> tuple[DataConfig, Store, Artifact]:
    """A data set of these names below `root` and its manifest."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"path": n, "split": "test", "caption": "x"}) + "\n" for n in sorted(names)))
    data = DataConfig(dataset="folder", root=str(root), annotations=str(file), max_failed_share=0.95)
    store = Store(tmp_path / "store")
    return data, store, steps.run(steps.ingest(store, data), store)
