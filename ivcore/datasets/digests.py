"""sha256 of the files of a data set, remembered in the workspace: a night reads the bytes of new files alone.

A file is taken for the one that was read while path, inode, size and times are. The time of its last change of any kind
(ctime) is the system's: no program can set it back. What changed within SETTLED_S of being looked at is read again the
next time, since two writes within a tick of the clock look alike. Not by the device's number: network disks get a new
one at every mount.
"""

import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ivcore.store.artifacts import sha256_file
from ivcore.video.probe import Unusable, regular_file

FILE = "digests.sqlite"  # in the workspace's cache; without it everything is read once
SETTLED_S = 2.0
WAIT_S = 30.0  # for another process that writes to it
PART = 256  # files between two commits: what a stopped night does not read again
TABLE = "CREATE TABLE IF NOT EXISTS digests (identity TEXT PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID"
log = logging.getLogger("iv")

_known: dict[str, str] = {}  # of this process, by identity


def remembered(home: Path, paths: Sequence[Path]) -> list[str]:
    """sha256 in hex of each file, or the reason why there is none; read are those that the workspace does not know."""
    out: list[str] = []
    place = home / "cache" / FILE
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(_database(place)) as database, ThreadPoolExecutor() as threads:
        for start in range(0, len(paths), PART):
            part, began = paths[start : start + PART], time.time()
            seen = {identity(path, found): found for path in part if (found := _stat(path))}
            have = _recall(database, list(seen))
            _known.update(have)
            out += threads.map(digest, part)
            settled = {name for name, found in seen.items() if found.st_ctime < began - SETTLED_S}
            _keep(database, {name: _known[name] for name in settled & _known.keys() - have.keys()})
    return out


def digest(path: Path) -> str:
    """sha256 of the file's bytes in hex, or the reason why there is none; read once while the file stays as it is."""
    try:
        name = identity(path, regular_file(path))
        if name not in _known:
            _known[name] = sha256_file(path)
        return _known[name]
    except Unusable as e:
        return e.reason
    except OSError:
        return "unreadable"


def known(path: Path) -> str | None:
    """sha256 in hex of a file that this process has read, and that is as it was."""
    found = _stat(path)
    return _known.get(identity(path, found)) if found else None


def identity(path: Path, found: os.stat_result) -> str:
    """What stays while nobody writes to the file."""
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {path}"


def _stat(path: Path) -> os.stat_result | None:
    try:
        return regular_file(path)
    except (Unusable, OSError):
        return None


def _database(place: Path | str) -> sqlite3.Connection:
    """The workspace's memory, made anew where it is damaged; an empty one where it cannot be had."""
    try:
        database = sqlite3.connect(place, timeout=WAIT_S)
        database.execute(TABLE)
        return database
    except sqlite3.OperationalError as e:  # locked, or no room
        log.warning("%s: %s; every video is read", place, e)
        return _database(":memory:")
    except sqlite3.DatabaseError as e:
        log.warning("%s: %s; it is made anew", place, e)
        Path(place).unlink(missing_ok=True)
        return _database(place)


def _recall(database: sqlite3.Connection, names: list[str]) -> dict[str, str]:
    out: dict[str, str] = {}
    with contextlib.suppress(sqlite3.Error):
        for name in names:
            out |= dict(database.execute("SELECT identity, sha256 FROM digests WHERE identity = ?", (name,)))
    return out


def _keep(database: sqlite3.Connection, new: dict[str, str]) -> None:
    with contextlib.suppress(sqlite3.Error), database:
        database.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?)", new.items())
