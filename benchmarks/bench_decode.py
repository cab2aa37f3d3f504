"""Decoding generated H.264, 8 frames to 224 x 224: the whole step with pool and shard writing, against plain loops.

CPU milliseconds a clip of all processes, the least of the turns, so that other work on the machine disturbs little;
one worker, one thread.

decode_auto_SIZE      decoder auto against decord's VideoReader and get_batch
decode_pyav_SIZE      decoder pyav against the best of decord, a PyAV seek a frame, PyAV from the beginning (torchcodec)
decode_floor_SIZE     decoder pyav against decoding only what the wanted frames refer to, without a conversion
decode_pool_SIZE      the step with its pool against the same step in this process
decode_two_workers    seconds of two workers against two independent processes, interleaved
decode_rows_*         a long manifest: highest resident MB of the parent (also at 224 pixels), its CPU in the time
decode_opens_*        resident MB of parent and worker early and late in a long row of opens
"""

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch

from ivcore import steps
from ivcore.config import DataConfig, FramesConfig
from ivcore.data import decode, pool
from ivcore.data.decode_file import Decoded, Task, decode_file
from ivcore.data.preflight import preflight
from ivcore.data.resize import resize
from ivcore.data.sampling import Sampling, middle
from ivcore.store import Artifact, Store

# name: width, height, seconds, clips, repeats
SIZES = {
    "320x240_10s": (320, 240, 10, 20, 5),
    "1280x720_10s": (1280, 720, 10, 4, 3),
    "1920x1080_60s": (1920, 1080, 60, 1, 2),
}
SMOKE = {"320x240_1s": (320, 240, 1, 3, 1)}
RATE, T, EDGE = 25, 8, 224
ROWS, OPENS = 10_000, 5_000


def run(sizes: dict = SIZES, rows: int = ROWS, opens: int = OPENS) -> Iterator[dict]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        for name, size in sizes.items():
            yield from _size(Path(place), name, *size)
        yield _two_workers(Path(place) / next(iter(sizes)))
        yield from _rows(Path(place), rows)
        yield from _opens(Path(place) / "rows", opens)


def videos(folder: Path, width: int, height: int, seconds: float, num: int) -> None:
    """One film, a wandering texture with noise, coded as x264 does by default; and `num` files of other bytes."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    small = chance.integers(0, 255, (height // 8, width // 4, 3), np.uint8)
    large = np.kron(small, np.ones((16, 8, 1), np.uint8))
    with av.open(str(folder / "film.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "b_strategy": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(int(seconds * RATE)):
            x, y = int(width / 2 * (1 + np.sin(n / 40))), int(height / 2 * (1 + np.cos(n / 55)))
            picture = large[y : y + height, x : x + width].copy()
            picture[: height // 4] += chance.integers(0, 12, (height // 4, width, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    for n in range(num):
        with av.open(str(folder / "film.mp4")) as given, av.open(str(folder / f"{n:03}.mp4"), "w") as container:
            container.metadata["title"] = f"copy {n}"
            stream = container.add_stream_from_template(given.streams.video[0])
            for packet in given.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    container.mux(packet)
    (folder / "film.mp4").unlink()


# one size


def _size(place: Path, name: str, width: int, height: int, seconds: float, num: int, repeats: int) -> Iterator[dict]:
    folder = place / name
    videos(folder, width, height, seconds, num)
    paths = sorted(folder.glob("*.mp4"))
    data = DataConfig(dataset="folder", root=str(folder))
    store = Store(place / f"{name}-store")
    manifest = steps.run(steps.ingest(store, data), store)
    plain = {"decord": by_decord, "seek": by_seeks, "sequential": by_sequence, "floor": floor}
    if _torchcodec() is not None:
        plain["torchcodec"] = by_torchcodec
    sides: dict[str, Callable[[Store], tuple[float, bytes]]] = {
        "auto": lambda to: _step(to, store, folder, manifest, "auto"),
        "pyav": lambda to: _step(to, store, folder, manifest, "pyav"),
        "inline": lambda to: _inline(to, manifest, (decode_file(_task(p, "pyav")) for p in paths)),
    }
    for side, function in plain.items():
        sides[side] = lambda to, function=function: _inline(to, manifest, map(function, paths))
    times: dict[str, list[float]] = {side: [] for side in sides}
    frames: dict[str, bytes] = {}
    for turn in range(repeats):
        for side, work in sides.items():
            cpu_s, frames[side] = work(Store(place / f"{name}-{side}-{turn}"))
            times[side].append(1000 * cpu_s / num)
    true = frames["sequential"]
    best = min((s for s in ("decord", "seek", "sequential", "torchcodec") if s in times), key=lambda s: min(times[s]))
    pairs = {"auto": ("auto", "decord"), "pyav": ("pyav", best), "floor": ("pyav", "floor"), "pool": ("pyav", "inline")}
    for row, (ours, baseline) in pairs.items():
        wrong = sum(a != b for a, b in zip(frames[ours], true, strict=True))
        yield {
            "name": f"decode_{row}_{name}",
            "ours": min(times[ours]),
            "baseline": min(times[baseline]),
            "unit": "CPU ms a clip",
            "spread": {side: [min(times[side]), max(times[side])] for side in (ours, baseline)},
            "equal": wrong == 0,
            "how_equal": f"{wrong} of {len(true)} bytes differ from a sequential decode",
            "against": baseline,
            "all_ms": {side: round(min(t), 2) for side, t in times.items()},
        }


def _task(path: Path, decoder: str) -> Task:
    return Task(path, Sampling("middle", T), EDGE, decoder=decoder)


def _step(to: Store, store: Store, folder: Path, manifest: Artifact, decoder: str) -> tuple[float, bytes]:
    """CPU seconds of the whole step, parent and worker, and the frames."""
    frames = FramesConfig(num_frames=T, size_px=EDGE, decoder=decoder, workers=1, deadline_s=600)
    began = time.process_time()
    with to.write("frames", "k", 1, {}, {}) as draft:
        decode.decode_manifest(draft, to, folder, frames, manifest, 0.0, steps.quiet)
    return time.process_time() - began + draft.measured["workers_cpu_s"], _stored(to)


def _inline(to: Store, manifest: Artifact, results: Iterator[Decoded]) -> tuple[float, bytes]:
    """CPU seconds of these results and of the same writer, in this process, and the frames."""
    frames = FramesConfig(num_frames=T, size_px=EDGE)
    clips = list(decode.schemas.rows(manifest.path / "manifest.parquet", decode.schemas.MANIFEST))
    began = time.process_time()
    decode._write_shard(to, {"clips": []}, frames, clips, iter(results))
    return time.process_time() - began, _stored(to)


def _stored(store: Store) -> bytes:
    [shard] = (a for a in store.all() if a.kind == "frame_shard")
    table = decode.schemas.read(shard.path / "frames.parquet", decode.schemas.FRAME_SHARD, ["frames"])
    return b"".join(table.column("frames").to_pylist())


# the plain loops: full-size frames, the same resize


def _small(pictures: list[np.ndarray], index: list[int], num: int, name: str) -> Decoded:
    return Decoded(resize(pictures, EDGE, True), index, [0.0] * T, num, 1.0, name)


def by_decord(path: Path) -> Decoded:
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    index = middle(len(reader), T)
    return _small(list(reader.get_batch(index).asnumpy()), index, len(reader), "decord")


def by_seeks(path: Path) -> Decoded:
    """A seek for every frame, and decoding up to it."""
    pictures = []
    with av.open(str(path)) as container:
        stream = _single(container)
        index = middle(stream.frames, T)
        for wanted in [int(i / stream.average_rate / stream.time_base) for i in index]:
            container.seek(wanted, stream=stream)
            frame = next(f for f in container.decode(stream) if f.pts >= wanted)
            pictures.append(frame.to_ndarray(format="rgb24"))
        return _small(pictures, index, stream.frames, "seek")


def by_sequence(path: Path) -> Decoded:
    with av.open(str(path)) as container:
        stream = _single(container)
        index = middle(stream.frames, T)
        found = (f for n, f in enumerate(container.decode(stream)) if n in index)
        pictures = [f.to_ndarray(format="rgb24") for f in itertools.islice(found, T)]
        return _small(pictures, index, stream.frames, "sequential")


def floor(path: Path) -> Decoded:
    """FFmpeg's decoder on the wanted frames and those they refer to; nothing is converted."""
    with preflight(path) as video:
        pts, keys = video.table.pts, sorted(video.table.keys)
        wanted = {pts[i] for i in middle(len(pts), T)}
        _single(video.container)
        for key, end in itertools.zip_longest(keys, keys[1:], fillvalue=pts[-1] + 1):
            group = {t for t in wanted if key <= t < end}
            if not group:
                continue
            video.container.seek(key, stream=video.stream)
            for packet in video.container.demux(video.stream):
                video.stream.codec_context.skip_frame = "DEFAULT" if packet.pts in group else "NONREF"
                if any(frame.pts == max(group) for frame in packet.decode()):
                    break
    return Decoded(np.zeros((T, EDGE, EDGE, 3), np.uint8), [0] * T, [0.0] * T, 0, 1.0, "floor")


def _torchcodec() -> object | None:
    try:
        from torchcodec import decoders

        return decoders
    except (ImportError, RuntimeError, OSError):
        return None


def by_torchcodec(path: Path) -> Decoded:
    reader = _torchcodec().VideoDecoder(str(path), num_ffmpeg_threads=1, dimension_order="NHWC")
    index = middle(len(reader), T)
    return _small(list(reader.get_frames_at(index).data.numpy()), index, len(reader), "torchcodec")


def _single(container: av.container.InputContainer) -> av.VideoStream:
    stream = container.streams.video[0]
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    return stream


# two workers, a long manifest, many opens

HALF = """
import sys
from pathlib import Path
import torch
from benchmarks.bench_decode import _task
from ivcore.data.decode_file import decode_file
torch.set_num_threads(1)
print(flush=True)
for line in sys.stdin:
    for path in line.split():
        decode_file(_task(Path(path), "pyav"))
    print(flush=True)
"""


def _two_workers(folder: Path, repeats: int = 3) -> dict:
    paths = [str(p) for p in sorted(folder.glob("*.mp4"))] * 6
    halves = [
        subprocess.Popen([sys.executable, "-c", HALF], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for half in halves:
        half.stdout.readline()
    times: dict[str, list[float]] = {"pool": [], "halves": []}
    for _ in range(repeats):
        began = time.perf_counter()
        for n, half in enumerate(halves):
            half.stdin.write(" ".join(paths[n::2]) + "\n")
            half.stdin.flush()
        for half in halves:
            half.stdout.readline()
        times["halves"].append(time.perf_counter() - began)
        began = time.perf_counter()
        found = list(pool.run(decode_file, [_task(Path(p), "pyav") for p in paths], 2, 600))
        times["pool"].append(time.perf_counter() - began)
    for half in halves:
        half.stdin.close()
        half.wait()
        half.stdout.close()
    return {
        "name": "decode_two_workers",
        "ours": statistics.median(times["pool"]),
        "baseline": statistics.median(times["halves"]),
        "unit": "s",
        "spread": {side: [min(t), max(t)] for side, t in times.items()},
        "equal": all(isinstance(f, Decoded) and f.error is None for f in found),
        "how_equal": f"{len(found)} clips decoded on each side; the pool starts its workers within the time",
    }


MANIFEST = """
import json, sys, time
from pathlib import Path
from ivcore import steps
from ivcore.config import DataConfig, FramesConfig
from ivcore.store import Store
if __name__ == "__main__":
    place = Path(sys.argv[1])
    data = DataConfig(dataset="folder", root=str(place / "rows"), annotations=str(place / "rows.csv"))
    store = Store(place / f"rows-store-{sys.argv[2]}")
    manifest = steps.run(steps.ingest(store, data), store)
    began, cpu = time.perf_counter(), time.process_time()
    frames = steps.run(steps.decode(store, data, FramesConfig(size_px=int(sys.argv[2])), manifest), store)
    taken = frames.record()["measured"]
    peak_kb = int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
    print(json.dumps({"rows": frames.rows, "wall_s": time.perf_counter() - began, "parent_s": time.process_time() - cpu,
        "workers_s": taken["workers_cpu_s"], "peak_mb": peak_kb / 1024}))
"""


def _rows(place: Path, num: int) -> Iterator[dict]:
    """A manifest of `num` clips, windows of ten short films, in a process of its own."""
    videos(place / "rows", 320, 240, 2, 10)
    lines = [f"{n % 10:03}.mp4,test,{(n // 10) * 1e-4:.4f},one" for n in range(num)]
    (place / "rows.csv").write_text("path,split,start_s,caption\n" + "\n".join(lines))
    (place / "rows.py").write_text(MANIFEST)
    code = [sys.executable, "-c", f"import runpy; runpy.run_path({str(place / 'rows.py')!r}, run_name='__main__')"]
    taken = {}
    for edge in (32, EDGE):
        if edge == EDGE:  # a shard and more will do: each is written as the one before
            (place / "rows.csv").write_text("path,split,start_s,caption\n" + "\n".join(lines[: num // 10]))
        done = subprocess.run([*code, str(place), str(edge)], capture_output=True, text=True, check=True)
        taken[edge] = json.loads(done.stdout.splitlines()[-1])
    good = taken[32]["rows"] == num and taken[EDGE]["rows"] == num // 10
    common = {"equal": good, "how_equal": f"{num} clips of 32 pixels and {num // 10} of {EDGE}", "measured": taken}
    share = taken[32]["parent_s"] / taken[32]["wall_s"]
    yield {"name": "decode_rows_parent_mb", "ours": taken[32]["peak_mb"], "baseline": 400.0, "unit": "MB", **common}
    yield {
        "name": "decode_rows_224_parent_mb",
        "ours": taken[EDGE]["peak_mb"],
        "baseline": 400.0,
        "unit": "MB",
        **common,
    }
    yield {"name": "decode_rows_parent_share", "ours": share, "baseline": 0.05, "unit": "of the time", **common}


def resident(path: Path) -> tuple[float, bool]:
    """Resident MB of this worker after a clip, and whether it was decoded."""
    got = decode_file(_task(path, "auto"))
    return _mb(), got.error is None


def _mb() -> float:
    return pool._pages(1) * pool.PAGE / 2**20


def _opens(folder: Path, num: int) -> Iterator[dict]:
    """Baseline: MB after a tenth of the opens; ours: at the end. Workers are not replaced meanwhile."""
    path, kept = next(folder.glob("*.mp4")), pool.RECYCLE_TASKS
    pool.RECYCLE_TASKS = 0
    try:
        outcomes = pool.run(resident, itertools.repeat(path, num), 1, 600)
        worker, parent, good = [], [], True
        for mb, fine in outcomes:
            worker.append(mb)
            parent.append(_mb())
            good = good and fine
    finally:
        pool.RECYCLE_TASKS = kept
    for who, mb in (("worker", worker), ("parent", parent)):
        yield {
            "name": f"decode_opens_{who}_mb",
            "ours": mb[-1],
            "baseline": mb[num // 10],
            "unit": "MB",
            "spread": {"mb": [min(mb), max(mb)]},
            "equal": good,
            "how_equal": f"{num} opens, every one decoded",
        }
