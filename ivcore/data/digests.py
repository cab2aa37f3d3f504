"""sha256 of the files of a data set, remembered in the workspace: a night reads the bytes of new files alone.

A file is taken for the one that was read while device, inode, size and times are. The time of its last change of any
kind (ctime) is the system's: no program can set it back. What changed within SETTLED_S of being looked at is read again
the next time, since two writes within a tick of the clock look alike.
"""

import contextlib
import os
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ivcore.data.preflight import Unusable, regular
from ivcore.store import sha256_file

FILE = "digests.sqlite"  # in the workspace's cache; without it everything is read once
SETTLED_S = 2.0
WAIT_S = 30.0  # for another process that writes to it
TABLE = "CREATE TABLE IF NOT EXISTS digests (identity TEXT PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID"

_known: dict[str, str] = {}  # of this process, by identity


def remembered(home: Path, paths: Sequence[Path]) -> list[str]:
    """sha256 in hex of each file, or the reason why there is none; read are those that the workspace does not know."""
    began = time.time()
    place = home / "cache" / FILE
    place.parent.mkdir(parents=True, exist_ok=True)
    seen = [_seen(path) for path in paths]
    asked = {identity(found) for found in seen if found and identity(found) not in _known}
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(place, timeout=WAIT_S)) as table, table:
        table.execute(TABLE)
        for name in asked:
            for (sha256,) in table.execute("SELECT sha256 FROM digests WHERE identity = ?", (name,)):
                _known[name] = sha256
    with ThreadPoolExecutor() as threads:
        out = list(threads.map(digest, paths))
    settled = {identity(found) for found in seen if found and found.st_ctime < began - SETTLED_S}
    new = [(name, _known[name]) for name in asked & settled & _known.keys()]
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(place, timeout=WAIT_S)) as table, table:
        table.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?)", new)
    return out


def digest(path: Path) -> str:
    """sha256 of the file's bytes in hex, or the reason why there is none; read once while the file stays as it is."""
    try:
        name = identity(regular(path))
        if name not in _known:
            _known[name] = sha256_file(path)
        return _known[name]
    except Unusable as e:
        return e.reason
    except OSError:
        return "unreadable"


def known(path: Path) -> str | None:
    """sha256 in hex of a file that this process has read, and that is as it was."""
    found = _seen(path)
    return _known.get(identity(found)) if found else None


def identity(found: os.stat_result) -> str:
    """What stays while nobody writes to the file."""
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}"


def _seen(path: Path) -> os.stat_result | None:
    try:
        return regular(path)
    except (Unusable, OSError):
        return None
