"""The step decode: shards that are found again, broken files as rows with reasons, clips whose worker was lost."""

import os
import shutil
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from ivcore import steps
from ivcore.config import FramesConfig
from ivcore.errors import WorkError
from ivcore.store.artifacts import Store
from ivcore.video import decode_clips
from ivcore.video.decode_file import decode_file
from ivcore.video.frames import Frames
from tests.ivcore.video import breaking
from tests.ivcore.video.made_up import folder_of, index, numbered


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
        "text.mp4": "not_a_video",
        "playlist.mp4": "not_a_video",
        "concat.mp4": "not_a_video",
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
    assert all(rows[n]["decoder"].startswith("decord") for n in mended)
    assert all(rows[f"good{i}"]["decoder"].startswith("pyav") for i in range(9))
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


def test_cpu_of_the_workers_is_in_the_records(made: tuple) -> None:
    store, _, manifest, frames = made
    record, shards = frames.record(), [a.record() for a in store.all() if a.kind == "frame_shard"]
    told = record["measured"]["workers_cpu_s"]
    assert record["cpu_s"] >= told > 0.02 and manifest.record()["cpu_s"] > 0.02
    assert sum(shard["cpu_s"] for shard in shards) >= 0.9 * told
    assert record["measured"]["decoder_ms"] == {}  # too few clips to spend on it
