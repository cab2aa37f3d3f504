"""One bit flipped in each kind of file of each kind of artifact: it is never used, and the run ends whole."""

import json
import logging
import shutil

import pytest
from click.testing import CliRunner

from ivcore.config import load
from ivcore.store import soundness
from ivcore.store.artifacts import Store
from tests import own_videos
from tests.kill import hashes

SMALLEST = [
    "train.s2.phases.pretrain.steps=2",
    "train.s2.phases.pretrain.warmup_steps=0",
    "train.clip.phases.text.steps=2",
    "train.clip.phases.text.warmup_steps=0",
    "train.threads=1",
    "frames.num_frames=2",
    "frames.workers=1",
    "eval.latency_queries=10",
    "eval.bootstrap=100",
    "eval.examples=0",
    "data.shares=[0.5, 0.0, 0.5]",
]


# Kinds to damage in one run, and those that read them, which are made again.
ROUNDS = {
    ("manifest", "s2", "clip"): ("frames", "frame_shard", "features", "scores"),
    ("frames", "features", "scores"): ("s2", "clip", "report"),
    ("frame_shard",): ("frames", "features", "s2"),
    ("report",): (),
}


@pytest.fixture(scope="module")
def run(workspace, tmp_path_factory):
    """A workspace with a finished run, and that run once more."""
    from flows.everything import everything

    videos = own_videos.make(tmp_path_factory.mktemp("videos"), 6)
    config = load("mine", [f"data.root={videos}", f"data.annotations={videos}/captions.csv", *SMALLEST])
    home = tmp_path_factory.mktemp("damage") / "ws"
    everything(config, str(home))
    return home, lambda: everything(config, str(home))


def flip(path, at=None):
    """One bit of a file, in its middle or at a byte."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if at is None else at] ^= 1
    path.write_bytes(data)


def bytes_of(home):
    """Of every artifact but the report, which shows the times of what was made again."""
    return {name: digest for name, digest in hashes(home).items() if "/report/" not in name}


@pytest.mark.parametrize("kinds", ROUNDS, ids="-".join)
def test_no_flipped_bit_is_used_and_the_run_ends_whole(run, kinds, caplog, monkeypatch):
    home, again = run
    monkeypatch.setattr(logging.getLogger("iv"), "propagate", True)
    whole = bytes_of(home)
    artifacts = [next((home / "artifacts" / kind).iterdir()) for kind in kinds]
    files = {artifact: sorted(p.name for p in artifact.iterdir()) for artifact in artifacts}
    for turn in range(max(map(len, files.values()))):
        flipped = [artifact / names[turn] for artifact, names in files.items() if turn < len(names)]
        for path in flipped:
            flip(path)
        for kind in ROUNDS[kinds]:
            shutil.rmtree(home / "artifacts" / kind)
        caplog.clear()
        again()
        assert bytes_of(home) == whole
        assert [a.id for a in Store(home).all() if soundness.fault(a.path)] == []
        for path in flipped:
            name = f"{path.parent.parent.name}/{path.parent.name}"
            records = {id(r): r for r in caplog.records if r.name == "iv"}  # its handler may hang on two loggers
            said = [r.getMessage() for r in records.values()]
            told = [line for line in said if f"{name} is damaged: {path.name} " in line]
            assert len(told) == 1 and "set aside" in told[0] and "\n" not in told[0]
            assert (home / "damaged" / name).is_dir()
        shutil.rmtree(home / "damaged")


def test_doctor_reads_the_whole_workspace(run):
    from flows.cli import main

    home, again = run
    whole = bytes_of(home)
    path = next((home / "artifacts").glob("features/*/features.parquet"))
    flip(path)
    done = CliRunner().invoke(main, ["doctor", "--home", str(home), "--verify", "--json"])
    (found,) = (c for c in json.loads(done.output)["checks"] if c["name"] == "artifact")
    assert done.exit_code == 1 and found["cure"] == "iv run"
    assert f"features/{path.parent.name} is damaged: features.parquet" in found["value"]
    again()
    assert bytes_of(home) == whole
    done = CliRunner().invoke(main, ["doctor", "--home", str(home), "--verify", "--json"])
    assert any(c["value"].endswith("are as they were written") and c["ok"] for c in json.loads(done.output)["checks"])
