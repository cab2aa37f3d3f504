"""Decoding generated H.264, 8 frames to 224 x 224: the whole step with pool and shard writing, against plain loops.

CPU milliseconds a clip of all processes, the least of the turns, so that other work on the machine disturbs little;
one worker, one thread. A worker's CPU counts from its fork; the fork server's imports, once a program, do not.

decode_auto_H264_SIZE    decoder auto against decord's VideoReader and get_batch
decode_pyav_H264_SIZE    decoder pyav against the best of decord, a PyAV seek a frame, PyAV from the beginning, and
                         torchcodec where it can be loaded (all_ms says)
decode_floor_H264_SIZE   decoder pyav against decoding only what the wanted frames refer to, without a conversion
decode_isolation         the step with its pool against the same step in this process, 320x240
decode_two_workers       seconds of two workers against two independent processes, interleaved
decode_rows_*            a long manifest: highest resident MB of the parent (also at 224 pixels), its CPU in the time
decode_opens_*           resident MB of parent and worker early and late in a long row of opens
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

import torch

from benchmarks import plain_decoders as plain
from benchmarks.plain_decoders import EDGE, T, videos
from ivcore import steps
from ivcore.config import DataConfig, FramesConfig
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store
from ivcore.video import decode, disk_plan, pool, shards
from ivcore.video.decode_file import Decoded, Task, decode_file
from ivcore.video.sampling import Sampling

# name: width, height, seconds, clips, turns
SIZES = {
    "H264_320x240": (320, 240, 10, 100, 2),
    "H264_1280x720": (1280, 720, 10, 6, 3),
    "H264_1920x1080": (1920, 1080, 60, 1, 2),
}
SMOKE = {"H264_320x240": (320, 240, 1, 3, 1)}
ROWS, OPENS = 10_000, 5_000


def run(sizes: dict = SIZES, rows: int = ROWS, opens: int = OPENS) -> Iterator[dict]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        for name, size in sizes.items():
            yield from _size(Path(place), name, *size, isolation=name == next(iter(sizes)))
        yield _two_workers(Path(place) / next(iter(sizes)))
        yield from _rows(Path(place), rows)
        yield from _opens(Path(place) / "rows", opens)


# one size


def _size(
    place: Path, name: str, width: int, height: int, seconds: int, num: int, turns: int, isolation: bool
) -> Iterator[dict]:
    folder = place / name
    videos(folder, width, height, seconds, num)
    paths = sorted(folder.glob("*.mp4"))
    data = DataConfig(dataset="folder", root=str(folder))
    store = Store(place / f"{name}-store")
    manifest = steps.run(steps.ingest(store, data), store)
    loops = plain.installed()
    sides: dict[str, Callable[[Store], tuple[float, bytes]]] = {
        "auto": lambda to: _step(to, store, folder, manifest, "auto"),
        "pyav": lambda to: _step(to, store, folder, manifest, "pyav"),
    }
    if isolation:
        sides["inline"] = lambda to: _inline(to, manifest, (decode_file(_task(p, "pyav")) for p in paths))
    for side, function in {**loops, "floor": plain.floor}.items():
        sides[side] = lambda to, function=function: _inline(to, manifest, map(function, paths))
    times: dict[str, list[float]] = {side: [] for side in sides}
    frames: dict[str, bytes] = {}
    for turn in range(turns):
        for side, work in sides.items():
            cpu_s, frames[side] = work(Store(place / f"{name}-{side}-{turn}"))
            times[side].append(1000 * cpu_s / num)
    true = frames["sequential"]
    best = min(loops, key=lambda side: min(times[side]))
    pairs = {"auto": ("auto", "decord"), "pyav": ("pyav", best), "floor": ("pyav", "floor")}
    pairs = {f"decode_{row}_{name}": pair for row, pair in pairs.items()}
    if isolation:
        pairs["decode_isolation"] = ("pyav", "inline")
    for row, (ours, baseline) in pairs.items():
        wrong = sum(a != b for a, b in zip(frames[ours], true, strict=True))
        yield {
            "name": row,
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
    clips = list(schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST))
    began = time.process_time()
    shards.write_shard(to, frames, clips, iter(results))
    return time.process_time() - began, _stored(to)


def _stored(store: Store) -> bytes:
    [shard] = (a for a in store.all() if a.kind == "frame_shard")
    table = schemas.read(shard.path / "frames.parquet", schemas.FRAME_SHARD, ["frames"])
    return b"".join(table.column("frames").to_pylist())


# two workers, a long manifest, many opens

HALF = """
import sys
from pathlib import Path
import torch
from benchmarks.bench_decode import _task
from ivcore.video.decode_file import decode_file
torch.set_num_threads(1)
print(flush=True)
for line in sys.stdin:
    for path in line.split():
        decode_file(_task(Path(path), "pyav"))
    print(flush=True)
"""


def _two_workers(folder: Path, repeats: int = 3) -> dict:
    paths = [str(p) for p in sorted(folder.glob("*.mp4"))] * 2
    halves = [
        subprocess.Popen([sys.executable, "-c", HALF], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for half in halves:
        half.stdout.readline()
    size = disk_plan.clip_bytes(FramesConfig(num_frames=T, size_px=EDGE))
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
        tasks = [_task(Path(p), "pyav") for p in paths]
        found = list(pool.run(decode_file, tasks, 2, 600, array_bytes=size))
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
from ivcore.store.artifacts import Store
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
