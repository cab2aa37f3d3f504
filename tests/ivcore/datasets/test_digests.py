"""What the workspace remembers of files: never an old digest of new bytes, and no second reading of old ones."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ivcore.datasets import digests

ANOTHER = """
import sys
from pathlib import Path
from ivcore.datasets import digests
digests.SETTLED_S = float(sys.argv[2])
read = []
sha256_file = digests.sha256_file
digests.sha256_file = lambda path: read.append(path.name) or sha256_file(path)
home = Path(sys.argv[1])
print(*digests.remembered(home, sorted((home / "videos").iterdir())), "|", *sorted(read))
"""
AT_ONCE = -3600.0  # a file counts as settled however new


@pytest.fixture
def home(tmp_path):
    """A workspace with two files."""
    (tmp_path / "videos").mkdir()
    for name in "ab":
        (tmp_path / "videos" / name).write_bytes(name.encode())
    return tmp_path


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def another_process(home: Path, settled_s: float = AT_ONCE) -> tuple[list[str], list[str]]:
    """(digests of the two files, names of those that were read), told by a process that knows nothing itself."""
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER, str(home), str(settled_s)], capture_output=True, text=True, check=True
    )
    found, read = done.stdout.split("|")
    return found.split(), read.split()


def test_another_process_reads_what_is_new_alone(home):
    assert another_process(home) == ([sha(b"a"), sha(b"b")], ["a", "b"])
    assert another_process(home) == ([sha(b"a"), sha(b"b")], [])
    (home / "videos" / "c").write_bytes(b"c")
    assert another_process(home) == ([sha(b"a"), sha(b"b"), sha(b"c")], ["c"])


def test_bytes_that_changed_behind_the_same_size_and_mtime_are_read(home):
    another_process(home)
    path = home / "videos" / "a"
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # until the clock has ticked
        path.write_bytes(b"z")
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)
    assert another_process(home) == ([sha(b"z"), sha(b"b")], ["a"])


def test_a_file_that_has_just_changed_is_not_remembered(home):
    for _ in range(2):
        assert another_process(home, settled_s=3600) == ([sha(b"a"), sha(b"b")], ["a", "b"])


def test_a_damaged_memory_is_made_anew(home):
    another_process(home)
    (home / "cache" / digests.FILE).write_bytes(b"no database" * 100)
    assert another_process(home) == ([sha(b"a"), sha(b"b")], ["a", "b"])
    assert another_process(home) == ([sha(b"a"), sha(b"b")], [])


def test_a_night_that_is_stopped_keeps_what_it_has_read(home, monkeypatch):
    """Also what the process had read before it was settled."""
    monkeypatch.setattr(digests, "PART", 1)
    paths = sorted((home / "videos").iterdir())
    monkeypatch.setattr(digests, "SETTLED_S", 3600)
    digests.remembered(home, paths[:1])
    monkeypatch.setattr(digests, "SETTLED_S", AT_ONCE)

    def stopped(path):
        raise KeyboardInterrupt

    monkeypatch.setattr(digests, "sha256_file", stopped)
    with pytest.raises(KeyboardInterrupt):
        digests.remembered(home, paths)
    assert another_process(home) == ([sha(b"a"), sha(b"b")], ["b"])


def test_what_cannot_be_read_is_its_reason(tmp_path):
    (tmp_path / "empty").touch()
    os.mkfifo(tmp_path / "fifo")
    names = ["empty", "fifo", "gone"]
    assert digests.remembered(tmp_path, [tmp_path / n for n in names]) == ["empty", "not_a_file", "missing"]
    assert digests.known(tmp_path / "gone") is None
