"""The parent of a decode killed at seeded moments: the rerun ends in the shards of an unbroken run, byte for byte."""

import random
import shutil
import sys
from pathlib import Path

import pytest

from ivcore.store import schemas
from tests import kill
from tests.ivcore.video import zoo

NUM, BROKEN, SHARD = 300, 6, 20
MOMENTS = 20
ROOT = Path(kill.__file__).parents[1]
SCRIPT = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from ivcore import steps
from ivcore.config import DataConfig, FramesConfig
from ivcore.store.artifacts import Store

if __name__ == "__main__":
    store = Store(Path(sys.argv[1]))
    data = DataConfig(dataset="folder", root=sys.argv[2])
    manifest = steps.run(steps.ingest(store, data), store)
    steps.run(steps.decode(store, data, FramesConfig(shard_clips={SHARD}, workers=2), manifest), store)
"""


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("decode")
    (folder / "decode.py").write_text(SCRIPT)
    videos = folder / "videos"
    videos.mkdir()
    for n in range(NUM):
        path = videos / f"{n:03}.{('mp4', 'ts', 'mkv')[n % 3]}"
        zoo.write(path, num=4 + n % 5, size=(64, 48), options={"bf": "1", "preset": "ultrafast"}, first=n)
        if n % (NUM // BROKEN) == 7:
            path.write_bytes(path.read_bytes()[:150])
    return lambda home: [sys.executable, str(folder / "decode.py"), str(home), str(videos)]


@pytest.fixture(scope="module")
def unbroken(command, tmp_path_factory: pytest.TempPathFactory):
    return kill.unbroken_run(command, tmp_path_factory.mktemp("unbroken"))


def test_the_unbroken_run_holds_every_file(unbroken) -> None:
    [frames] = (unbroken[0] / "artifacts" / "frames").iterdir()
    rows = list(schemas.rows(frames / "index.parquet", schemas.FRAMES))
    assert len(rows) == NUM and sum(r["error"] is not None for r in rows) == BROKEN
    assert len(list((unbroken[0] / "artifacts" / "frame_shard").iterdir())) == NUM // SHARD


@pytest.fixture
def home(unbroken, tmp_path: Path) -> Path:
    """A workspace that has its manifest and nothing of the decode."""
    home = tmp_path / "ws"
    shutil.copytree(unbroken[0], home)
    for kind in ("frames", "frame_shard"):
        shutil.rmtree(home / "artifacts" / kind)
    return home


def killed(command, home: Path, moment: int) -> dict[str, bytes]:
    """Kill when the moment's share of the shards is done and a little later; the records of the shards there are."""
    shards = home / "artifacts" / "frame_shard"
    wanted, ticks = (NUM // SHARD) * moment // MOMENTS, random.Random(moment).randrange(8)

    def working() -> bool:
        nonlocal ticks
        ticks -= shards.is_dir() and len(done(shards)) >= wanted
        return ticks < 0

    assert kill.kill(command(home), home, when=working).landed
    return done(shards)


def done(shards: Path) -> dict[str, bytes]:
    found = [p for p in shards.iterdir() if not p.name.startswith(".")] if shards.is_dir() else []
    return {p.name: (p / "record.json").read_bytes() for p in found}


def test_killed_three_times(command, unbroken, home: Path) -> None:
    before = [killed(command, home, moment) for moment in (2, 9, 15)]
    assert len(before[0]) < len(before[2])
    kill.finish(command(home))
    assert kill.hashes(home) == kill.hashes(unbroken[0])
    after = done(home / "artifacts" / "frame_shard")
    assert all(some.items() <= after.items() for some in before)  # what was done was not done again


@pytest.mark.chaos
@pytest.mark.parametrize("moment", range(MOMENTS))
def test_killed_while_it_decodes(command, unbroken, home: Path, moment: int) -> None:
    before = killed(command, home, moment)
    kill.finish(command(home))
    assert kill.hashes(home) == kill.hashes(unbroken[0])
    assert before.items() <= done(home / "artifacts" / "frame_shard").items()
