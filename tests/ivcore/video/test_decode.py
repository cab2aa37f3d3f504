"""Decoding: the frames of a sequential decode, broken files as rows with reasons, workers that can be lost."""

import json
import os
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pytest
import torch

from ivcore import steps
from ivcore.config import DataConfig, FramesConfig, SyntheticConfig
from ivcore.datasets.shapes.drawing import encode
from ivcore.errors import WorkError
from ivcore.features import reader
from ivcore.features.reader import Features
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store
from ivcore.video import decode_clips, decoder_cost, disk_plan, pool
from ivcore.video.decode_file import Task, choose, decode_file
from ivcore.video.frames import Frames, normalise
from ivcore.video.probe import Unusable, open_video
from ivcore.video.resize import resize
from ivcore.video.sampling import Sampling, middle
from tests.ivcore.video import breaking


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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, DataConfig, Artifact, Artifact]:
    store = Store(tmp_path_factory.mktemp("store"))
    data = DataConfig(synthetic=SyntheticConfig(train_clips=16, val_clips=4, test_clips=4))
    manifest = steps.run(steps.ingest(store, data), store)
    frames = steps.run(steps.decode(store, data, FramesConfig(shard_clips=10), manifest), store)
    return store, data, manifest, frames


def test_frames_equal_a_sequential_decode(made: tuple) -> None:
    store, data, manifest, artifact = made
    frames = Frames(store, artifact)
    rows = list(schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST))
    assert frames.clip_ids == [r["clip_id"] for r in rows] and len(rows) == 24
    root = steps.module("ivcore.datasets.sets", "synthetic").root(store, data)
    batch = frames.batch(range(24))
    assert batch.shape == (24, 8, 32, 32, 3) and batch.dtype == torch.uint8
    for row, got in zip(rows, batch.numpy()):
        true = sequential(root / row["path"])
        assert np.array_equal(got, resize(true[middle(16, 8)], 32, antialias=True))
    entry = index(artifact)["test-00000"]
    assert entry["frame_index"] == [0, 2, 4, 6, 8, 10, 12, 14] and entry["num_frames"] == 16
    assert entry["pts_s"] == [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75]
    assert entry["decoder"].startswith("decord")
    assert artifact.record()["rows_ok"] == 24 and artifact.record()["measured"]["shards_made"] == 3


def test_rows_in_any_order(made: tuple) -> None:
    frames = Frames(made[0], made[3])
    rows = frames.rows_of(["train-00003", "test-00001", "train-00003"])
    batch = frames.batch(rows)
    assert torch.equal(batch[0], batch[2]) and not torch.equal(batch[0], batch[1])
    assert torch.equal(frames.batch([rows[1]])[0], batch[1])
    with pytest.raises(WorkError, match="'nobody' was not decoded"):
        frames.rows_of(["nobody"])


def test_same_bytes_on_every_run_and_shards_are_found_again(made: tuple, tmp_path: Path) -> None:
    store, data, manifest, frames = made
    other = Store(tmp_path)
    again = steps.run(steps.ingest(other, data), other)
    config = FramesConfig(shard_clips=10, workers=1, deadline_s=30)  # changes speed, not the key
    second = steps.run(steps.decode(other, data, config, again), other)
    assert (second.key, again.key) == (frames.key, manifest.key)
    assert second.record()["files"] == frames.record()["files"]
    assert again.record()["files"] == manifest.record()["files"]
    shards = [[a.record()["files"] for a in s.all() if a.kind == "frame_shard"] for s in (store, other)]
    assert shards[0] == shards[1] and len(shards[0]) == 3
    shutil.rmtree(second.path)
    third = steps.run(steps.decode(other, data, config, again), other)
    assert third.record()["measured"]["shards_made"] == 0
    assert third.record()["files"] == frames.record()["files"]


@pytest.mark.parametrize("decoder", ["auto", "decord", "pyav"])
def test_b_frames_and_windows(tmp_path: Path, decoder: str) -> None:
    path = tmp_path / "b.mp4"
    numbered(path)
    true = sequential(path)
    whole = decode_file(task(path, decoder, num=5))
    assert whole.error is None and whole.frame_index == middle(24, 5)
    assert np.array_equal(whole.frames, resize(true[whole.frame_index], 32, True))
    part = decode_file(task(path, decoder, num=3, start_s=0.5, end_s=1.0))  # frames 6 to 11
    assert part.frame_index == [6, 8, 10] and part.num_frames == 24
    assert np.array_equal(part.frames, resize(true[[6, 8, 10]], 32, True))
    assert decode_file(task(path, decoder, start_s=99.0)).error == "empty_window"


def test_what_decord_gets_wrong_goes_to_pyav(tmp_path: Path) -> None:
    for name in ("ts.ts", "avi.avi", "two.mkv"):
        numbered(tmp_path / name)
    for name in ("ts.ts", "avi.avi", "two.mkv"):
        got = decode_file(task(tmp_path / name, size=48))
        true = sequential(tmp_path / name)
        assert got.error is None, got
        assert got.decoder.startswith("decord" if name == "two.mkv" else "pyav")
        assert got.num_frames == len(true)
        assert np.array_equal(got.frames, resize(true[middle(len(true), 8)], 48, True))


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_rotation_is_applied(tmp_path: Path, decoder: str) -> None:
    flat, turned = tmp_path / "flat.mp4", tmp_path / "turned.mp4"
    picture = np.zeros((4, 32, 64, 3), np.uint8)
    picture[:, :16, :32] = (255, 0, 0)
    encode(flat, picture, 4)
    rotate(flat, turned)
    got = decode_file(task(turned, decoder, num=1, size=32)).frames[0].astype(int)
    still = decode_file(task(flat, decoder, num=1, size=32)).frames[0].astype(int)
    corner = {"flat": np.argwhere(still[..., 0] > 200).mean(0), "turned": np.argwhere(got[..., 0] > 200).mean(0)}
    assert corner["flat"].max() < 16 and corner["turned"][0] < 16 < corner["turned"][1]  # upper left -> upper right


def rotate(source: Path, target: Path) -> None:
    """A copy whose track matrix turns the picture by 90 degrees clockwise."""
    data = bytearray(source.read_bytes())
    one = (0x10000).to_bytes(4, "big")
    identity = one + bytes(12) + one + bytes(12) + (0x40000000).to_bytes(4, "big")
    spot = data.index(identity, data.index(b"tkhd"))
    quarter = bytes(4) + one + bytes(4) + (-0x10000).to_bytes(4, "big", signed=True) + bytes(16)
    data[spot : spot + 36] = quarter + (0x40000000).to_bytes(4, "big")
    target.write_bytes(data)


def broken(root: Path) -> dict[str, str | None]:
    """Files that are no good, by name, with the reason each should get; four good ones among them (None)."""
    root.mkdir()
    good = ("good1.mp4", "good2.mp4", "good3.mp4", "名 с пробелом é.mp4")
    for n, name in enumerate(good):
        numbered(root / name, 24 + n)
    whole = (root / "good1.mp4").read_bytes()
    (root / "empty.mp4").write_bytes(b"")
    (root / "text.mp4").write_text("this is no video\n" * 50)
    (root / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:2,\ngood1.mp4\n#EXT-X-ENDLIST\n")
    (root / "concat.mp4").write_text("ffconcat version 1.0\nfile good1.mp4\n")
    (root / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    numbered(root / "first.mp4", movflags="faststart")  # its index stands in front
    first = (root / "first.mp4").read_bytes()
    for n in range(1, 20):  # cut at 20 places, each way
        (root / f"cut{n}.mp4").write_bytes(whole[: len(whole) * n // 20])
        (root / f"first_cut{n}.mp4").write_bytes(first[: len(first) * n // 20])
    (root / "cut20.mp4").write_bytes(whole[:-1])
    (root / "first_cut20.mp4").write_bytes(first[:-1])
    (root / "no_index.mp4").write_bytes(whole[: whole.index(b"moov") - 4])
    claims = bytearray(whole)  # a header of a million frames, and a table of as many that is not there
    claims[(spot := whole.index(b"stsz") + 12) : spot + 4] = (1_000_000).to_bytes(4, "big")
    (root / "claims.mp4").write_bytes(claims)
    lies = bytearray(whole)
    lies[(spot := whole.index(b"stts") + 12) : spot + 4] = (1_000_000).to_bytes(4, "big")
    (root / "lies.mp4").write_bytes(lies)
    avi = numbered_avi(root / "avi.avi")
    (root / "avi.avi").write_bytes(avi)
    (root / "folder.mp4").mkdir()
    os.mkfifo(root / "fifo.mp4")
    numbered(root / "forbidden.mp4", 40)
    (root / "forbidden.mp4").chmod(0)
    huge(root / "huge.mp4")
    with av.open(str(root / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate, sound.time_base = 16000, Fraction(1, 16000)
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    cuts = {f"{name}{n}.mp4": "truncated" for name in ("cut", "first_cut") for n in range(1, 21)}
    return {
        **dict.fromkeys([*good, "first.mp4", "avi.avi"]),
        **cuts,
        "no_index.mp4": "truncated",
        "claims.mp4": "unreadable",
        "lies.mp4": None,
        "empty.mp4": "empty",
        "text.mp4": "unreadable",
        "playlist.mp4": "unreadable",
        "concat.mp4": "unreadable",
        "noise.mp4": "unreadable",
        "folder.mp4": "not_a_file",
        "fifo.mp4": "not_a_file",
        "forbidden.mp4": "unreadable" if os.geteuid() else None,  # nothing is forbidden to root
        "huge.mp4": "too_large",
        "sound.mp4": "no_video_stream",
        "missing.mp4": "missing",
    }


def huge(path: Path) -> None:
    """One grey picture of more pixels than are allowed."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=1)
        stream.width, stream.height, stream.pix_fmt = 8208, 4320, "yuvj420p"
        container.mux(stream.encode(av.VideoFrame(8208, 4320, "yuvj420p")))
        container.mux(stream.encode())


def numbered_avi(path: Path) -> bytes:
    """An AVI whose headers claim a million frames."""
    numbered(path)
    data = bytearray(path.read_bytes())
    data[(spot := data.index(b"avih") + 24) : spot + 4] = (1_000_000).to_bytes(4, "little")
    data[(spot := data.index(b"strh") + 40) : spot + 4] = (1_000_000).to_bytes(4, "little")
    return bytes(data)


def folder_of(root: Path, names: dict[str, str], tmp_path: Path) -> tuple[DataConfig, Store, Artifact]:
    """A data set of these names below `root` and its manifest."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"path": n, "split": "test", "caption": "x"}) + "\n" for n in sorted(names)))
    data = DataConfig(dataset="folder", root=str(root), annotations=str(file), max_failed_share=0.95)
    store = Store(tmp_path / "store")
    return data, store, steps.run(steps.ingest(store, data), store)


def test_broken_files_are_rows_and_good_ones_survive(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    reasons = broken(root)
    data, store, manifest = folder_of(root, reasons, tmp_path)
    (root / "good2.mp4").unlink()  # between the steps
    wanted = {**reasons, "good2.mp4": "missing"}
    frames = steps.run(steps.decode(store, data, FramesConfig(shard_clips=20), manifest), store)
    assert {k: r["error"] for k, r in index(frames).items()} == wanted
    record, num_good = frames.record(), sum(reason is None for reason in wanted.values())
    counts = (record["rows_in"], record["rows_ok"], record["rows_failed"])
    assert counts == (len(wanted), num_good, len(wanted) - num_good)
    assert record["facts"]["reasons"]["truncated"] == 41
    assert len(Frames(store, frames).clip_ids) == num_good
    assert all(Frames(store, frames).batch(range(num_good)).float().std((1, 2, 3, 4)) > 1)
    strict = data.model_copy(update={"max_failed_share": 0.5})
    shutil.rmtree(frames.path)
    with pytest.raises(WorkError, match=r"clips could not be decoded \(1 empty, 2 missing"):
        steps.run(steps.decode(store, strict, FramesConfig(shard_clips=20), manifest), store)


def test_equal_videos_are_kept_once_with_the_captions_of_all(tmp_path: Path) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    numbered(root / "a.mp4")
    shutil.copy(root / "a.mp4", root / "b.mp4")
    numbered(root / "c.mp4", 30)
    given = [("a.mp4", "train", "en", "one"), ("b.mp4", "test", "es", "uno"), ("c.mp4", "train", "en", "two")]
    rows = [{"path": p, "split": s, "language": lang, "caption": c} for p, s, lang, c in given]
    rows.append({"path": "a.mp4", "split": "train", "start_s": 1.0, "clip_id": "late", "caption": "its end"})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data = DataConfig(dataset="folder", root=str(root), annotations=str(tmp_path / "rows.json"), max_failed_share=0.1)
    store = Store(tmp_path / "store")
    manifest = steps.run(steps.ingest(store, data), store)
    found = {r["clip_id"]: r["error"] for r in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)}
    assert found == {"a.mp4": "duplicate", "b.mp4": None, "c.mp4": None, "late": None}  # what is scored stays
    captions = schemas.rows(manifest.path / "captions.parquet", schemas.CAPTIONS)
    of = {c["caption"]: c["clip_id"] for c in captions}
    assert of == {"one": "b.mp4", "uno": "b.mp4", "two": "c.mp4", "its end": "late"}
    record = manifest.record()
    assert record["facts"]["duplicates"] == 1 and (record["rows_in"], record["rows_failed"]) == (4, 1)
    frames = steps.run(steps.decode(store, data, FramesConfig(), manifest), store)  # a duplicate is no fault
    assert frames.rows == 3 and frames.record()["facts"]["reasons"] == {"duplicate": 1}


def test_what_does_not_fit_is_refused_before_it_begins(made: tuple, tmp_path: Path) -> None:
    store, data, manifest, frames = made
    tight = FramesConfig(size_px=64, disk_gb=1e-3)
    with pytest.raises(WorkError, match=r"new frames of 24 clips: at most 0.00 GB, and frames.disk_gb allows 0.001"):
        steps.run(steps.decode(store, data, tight, manifest), store)
    assert steps.run(steps.decode(store, data, FramesConfig(shard_clips=10, disk_gb=1e-9), manifest), store) == frames
    with pytest.raises(WorkError, match="make room or give --home elsewhere"):
        disk_plan.check("features", 10, 1e9, tmp_path)
    encoder = Artifact("s2", "k", tmp_path, 1)
    (tmp_path / "record.json").write_text(json.dumps({"config": {"model": {"size": "tiny"}}}))
    each = (1 + 4 * 16) * 96 * 2 + 128 * 4  # bytes of a clip: 65 tokens and the pooled vector
    assert disk_plan.features_of(frames, encoder, "float16") == pytest.approx(24 * each / 1e9)
    assert disk_plan.features_of(frames, encoder, "float16", 3) == pytest.approx(3 * 24 * each / 1e9)
    (tmp_path / "record.json").write_text(json.dumps({"config": {}}))
    assert disk_plan.features_of(frames, encoder, "float16") is None
    huge = disk_plan.features_gb(10**9, 16, 448, "6B", "float32")
    assert huge == pytest.approx(10**9 * ((1 + 16 * 32**2) * 3200 * 4 + 768 * 4) / 1e9)
    with pytest.raises(WorkError, match=r"new frames of 24 clips: .* then features of a trunk: \d+.* make room"):
        steps.run(steps.decode(store, data, FramesConfig(size_px=48), manifest, huge, later_must=True), store)
    disk_plan.check("new frames", 24, 1e-6, tmp_path, later_gb=huge)  # they may be left out: it is said, not refused


def test_frames_that_are_not_kept_are_decoded_for_each_batch(made: tuple) -> None:
    store, data, manifest, kept = made
    config = FramesConfig(shard_clips=10, cache=False, disk_gb=1e-9)
    artifact = steps.run(steps.decode(store, data, config, manifest), store)
    assert artifact.key != kept.key and artifact.rows == 24
    assert all(row["shard"] is None and row["error"] is None for row in index(artifact).values())
    frames = Frames(store, artifact)
    rows = frames.rows_of(["val-00001", "train-00002", "val-00001"])
    assert torch.equal(frames.batch(rows), Frames(store, kept).batch(rows))
    gone = steps.module("ivcore.datasets.sets", "synthetic").root(store, data) / "train/000/train-00002.mp4"
    assert gone.is_file()
    gone.rename(gone.with_suffix(".away"))
    try:
        with pytest.raises(WorkError, match=r"train-00002.mp4 could be decoded before and cannot be now: missing"):
            frames.batch(rows)
    finally:
        gone.with_suffix(".away").rename(gone)


def test_a_hung_task_costs_only_itself() -> None:
    began = time.monotonic()
    got = list(pool.run(time.sleep, [0.0, 60.0, 0.0, 0.0], workers=1, deadline_s=0.5))
    assert [g if g is None else g.reason for g in got] == [None, "timeout", None, None]
    assert time.monotonic() - began < 30


def test_a_lost_worker_costs_one_file_and_the_other_decoder_has_a_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    lost = {"crash_always": "crashed", "hang_always": "timeout", "grow_always": "out_of_memory"}
    mended = ("crash_auto", "hang_auto", "grow_auto", "raise_auto")
    names = {f"{n}.mp4": "" for n in (*lost, *mended, *(f"good{i}" for i in range(9)))}
    for n, name in enumerate(names):
        numbered(root / name, 20 + n)
    data, store, manifest = folder_of(root, names, tmp_path)
    monkeypatch.setattr(decode_clips, "decode_file", breaking.decode_or_break)
    config = FramesConfig(deadline_s=2.5, workers=2, shard_clips=10)
    began = time.monotonic()
    frames = steps.run(steps.decode(store, data, config, manifest), store)
    assert time.monotonic() - began < 60
    rows = {name.removesuffix(".mp4"): row for name, row in index(frames).items()}
    assert {n: r["error"] for n, r in rows.items() if r["error"]} == lost
    assert all(rows[n]["decoder"].startswith("pyav") for n in mended)
    assert all(rows[f"good{i}"]["decoder"].startswith("decord") for i in range(9))
    record = frames.record()
    assert (record["rows_in"], record["rows_ok"], record["rows_failed"]) == (16, 13, 3)
    assert record["measured"]["workers_cpu_s"] > 0

    monkeypatch.setattr(decode_clips, "decode_file", decode_file)  # the day after, the same files may come
    same = steps.run(steps.decode(store, data, config, manifest), store)
    assert same == frames  # what was lost stays lost under the same deadline
    more = steps.run(steps.decode(store, data, config.model_copy(update={"deadline_s": 9.0}), manifest), store)
    assert more.rows == 16 and more.record()["measured"]["clips_made"] == 3  # the lost ones alone are decoded again
    less = steps.run(steps.decode(store, data, config.model_copy(update={"deadline_s": 0.7}), manifest), store)
    assert less == frames


def test_a_worker_that_grew_is_replaced_and_no_task_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = list(pool.run(breaking.grown, [1, 1100, 1, 1], workers=1, deadline_s=20))
    assert outcomes[0] == outcomes[1] != outcomes[2] == outcomes[3]
    monkeypatch.setattr(pool, "RECYCLE_TASKS", 2)
    outcomes = list(pool.run(breaking.grown, [1] * 5, workers=1, deadline_s=20))
    assert len(set(outcomes)) == 3 and outcomes[0] == outcomes[1] != outcomes[2]


def test_cpu_of_the_workers_is_told() -> None:
    told: list[float] = []
    list(pool.run(sum, [range(3_000_000), range(10)], workers=1, deadline_s=20, spent=told.append))
    assert len(told) == 2 and told[0] > 0.01 > told[1]


def test_what_each_decoder_takes_is_measured_on_the_same_clips(tmp_path: Path) -> None:
    numbered(tmp_path / "long.mp4", 240)
    numbered(tmp_path / "short.mp4", 24)
    numbered(tmp_path / "stream.ts", 24)  # decord cannot be trusted with it
    tasks = [task(tmp_path / name) for name in ("long.mp4", "short.mp4", "stream.ts", "missing.mp4")]
    took = decoder_cost.decoder_ms(tasks)
    assert took.pop("clips") == 2 and took.pop("only_pyav") == 1
    assert took.keys() == {"decord", "pyav"} and all(0.1 < ms < 10_000 for ms in took.values()), took
    assert decoder_cost.decoder_ms(tasks[2:]) == {}
    assert decoder_cost.drawn(range(49)) == [] and len(decoder_cost.drawn(range(10_000))) == 8
    assert decoder_cost.drawn(range(120)) == decoder_cost.drawn(range(120)) and len(decoder_cost.drawn(range(120))) == 2


def test_cpu_of_the_workers_is_in_the_records(made: tuple) -> None:
    store, _, manifest, frames = made
    record, shards = frames.record(), [a.record() for a in store.all() if a.kind == "frame_shard"]
    told = record["measured"]["workers_cpu_s"]
    assert record["cpu_s"] >= told > 0.02 and manifest.record()["cpu_s"] > 0.02
    assert sum(shard["cpu_s"] for shard in shards) >= 0.9 * told
    assert record["measured"]["decoder_ms"] == {}  # too few clips to spend on it


def test_what_decord_says_is_the_same_on_every_run(tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    numbered(whole, 60)
    with av.open(str(whole)) as source, av.open(str(cut), "w") as target:  # no key frame: decord gives up
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.dts is not None and not packet.is_keyframe:
                packet.stream = stream
                target.mux(packet)
    got = decode_file(task(cut, "decord"))
    assert got.error == "unreadable" and got.detail.startswith("decord: ")
    assert str(tmp_path) not in got.detail and "/github" not in got.detail and not got.detail.startswith("decord: [")


def test_a_crash_costs_only_itself() -> None:
    got = list(pool.run(os._exit, [7], workers=1, deadline_s=20))
    assert [(g.reason, g.detail[-1]) for g in got] == [("crashed", "7")]
    assert [g.reason for g in pool.run(breaking.broken, ["spin"], workers=1, deadline_s=0.3)] == ["timeout"]
    got = list(pool.run(abs, [-1, "x", -3], workers=1, deadline_s=20))
    assert got[0] == 1 and got[1].reason == "failed" and "TypeError" in got[1].detail and got[2] == 3


def test_a_caller_who_leaves_early_leaves_no_worker(tmp_path: Path) -> None:
    outcomes = pool.run(time.sleep, [0.0, 60.0, 60.0], workers=1, deadline_s=100)
    next(outcomes)
    began = time.monotonic()
    outcomes.close()
    assert time.monotonic() - began < 20


SLEEPER = """
import time
from ivcore.video import pool

if __name__ == "__main__":
    for done in pool.run(time.sleep, [0.0, 300.0, 300.0], workers=1, deadline_s=1000):
        print(done, flush=True)
"""


def test_workers_end_with_a_killed_caller(tmp_path: Path) -> None:
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    env = {**os.environ, "PYTHONPATH": str(Path(pool.__file__).parents[2])}
    caller = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env=env)
    assert caller.stdout.readline() == "None\n"
    server_and_tracker = children(caller.pid)
    workers = [pid for parent in server_and_tracker for pid in children(parent)]
    assert workers
    caller.kill()
    caller.wait()
    caller.stdout.close()
    until = time.monotonic() + 10
    while any(running(pid) for pid in workers) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(running(pid) for pid in workers)


def children(parent: int) -> list[int]:
    threads = Path(f"/proc/{parent}/task").glob("*/children")
    return [int(pid) for thread in threads for pid in thread.read_text().split()]


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_choose_and_open_video_say_what_is_wrong(tmp_path: Path) -> None:
    assert choose([0.0, 1.0, 2.0], None, None, Sampling("middle", 2)) == [0, 1]
    with pytest.raises(Unusable, match="no frame between 5 s"):
        choose([0.0, 1.0], 5, None, Sampling("middle", 2))
    with pytest.raises(Unusable, match=r"frames \[1, 2\] of 2"):
        choose([0.0, 1.0], None, None, (1, 2))
    with pytest.raises(Unusable, match="missing"), open_video(tmp_path / "none.mp4"):
        pass


@pytest.mark.parametrize("antialias", [True, False])
def test_resize_is_torch_bicubic_of_all_pictures_at_once(antialias: bool) -> None:
    chance = np.random.default_rng(0)
    for high, wide in ((49, 67), (240, 320), (64, 64)):
        frames = chance.integers(0, 256, (3, high, wide, 3), np.uint8)
        planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        plain = torch.nn.functional.interpolate(planes, (64, 64), mode="bicubic", antialias=antialias)
        plain = plain.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        assert np.array_equal(resize(frames, 64, antialias), plain)
        assert np.array_equal(
            resize([np.rot90(f) for f in frames], 64, antialias)[0], resize(np.rot90(frames[0])[None], 64, antialias)[0]
        )
    mixed = resize([frames[0], np.zeros((10, 30, 3), np.uint8), frames[1]], 64, antialias)
    assert np.array_equal(mixed[[0, 2]], frames[:2]) and not mixed[1].any()


def test_normalise() -> None:
    frames = torch.full((1, 2, 4, 5, 3), 255, dtype=torch.uint8)
    frames[..., 2] = 0
    out = normalise(frames)
    assert out.shape == (1, 2, 3, 4, 5) and out.dtype == torch.float32
    expected = torch.tensor([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, -0.406 / 0.225])
    torch.testing.assert_close(out[0, 0, :, 0, 0], expected)
    with pytest.raises(ValueError, match="uint8"):
        normalise(frames.float())


def test_features_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tokens = np.arange(3 * 4 * 2, dtype=np.float16).reshape(3, 8)
    rows = [{"clip_id": f"c{n}", "tokens": list(tokens[n]), "pooled": [float(n)] * 5} for n in range(3)]
    with store.write("features", "k", 1, {}, {}) as draft:
        schemas.write(draft.path / "features.parquet", rows, schemas.features(4, 2, 5, pa.float16()), row_group_size=2)
        draft.facts |= {"num_tokens": 4, "width": 2, "pooled": 5}
        draft.count(3)
    features = Features(draft.artifact)
    assert features.clip_ids == ["c0", "c1", "c2"]
    got = features.tokens(features.rows_of(["c2", "c0"]))
    assert got.dtype == torch.float32 and got.tolist() == tokens.reshape(3, 4, 2)[[2, 0]].tolist()
    assert features.pooled([1]).tolist() == [[1.0] * 5]


def test_features_are_read_on_demand_and_hold_what_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, num = Store(tmp_path), 40
    tokens = np.random.default_rng(0).standard_normal((num, 4 * 2)).astype(np.float16)
    rows = [{"clip_id": f"c{n}", "tokens": list(tokens[n]), "pooled": [float(n)] * 5} for n in range(num)]
    with store.write("features", "k", 1, {}, {}) as draft:
        schemas.write(draft.path / "features.parquet", rows, schemas.features(4, 2, 5, pa.float16()), row_group_size=3)
        draft.facts |= {"num_tokens": 4, "width": 2, "pooled": 5}
        draft.count(num)
    monkeypatch.setattr(reader, "CACHE_BYTES", 5 * 3 * 4 * 2 * 2)  # five row groups of three clips
    features, read = Features(draft.artifact), []
    plain, read_group = tokens.astype(np.float32).reshape(num, 4, 2), features._files[0].read_row_group
    monkeypatch.setattr(features._files[0], "read_row_group", lambda *a, **k: read.append(a[0]) or read_group(*a, **k))
    for seed in range(8):
        wanted = np.random.default_rng(seed).integers(0, num, 16).tolist()
        before = len(read)
        assert np.array_equal(features.tokens(wanted).numpy(), plain[wanted])
        assert len(read) - before <= len({row // 3 for row in wanted})  # each row group once a batch at most
        assert sum(group.nbytes for group in features._groups.values()) <= reader.CACHE_BYTES
