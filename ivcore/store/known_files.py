"""What was read of files, remembered in the workspace's cache, so that the bytes of a file are read once.

A file is taken for the one that was read while path, inode, size and times are. The time of its last change of any kind
(ctime) is the system's: no program can set it back. What changed within SETTLED_S of being looked at is read again the
next time, since two writes within a tick of the clock look alike. Not by the device's number: network disks get a new
one at every mount.
"""

import contextlib
import hashlib
import logging
import os
import sqlite3
from pathlib import Path

SETTLED_S = 2.0
WAIT_S = 30.0  # for another process that writes to it
TABLE = "CREATE TABLE IF NOT EXISTS digests (identity TEXT PRIMARY KEY, sha256 TEXT NOT NULL) WITHOUT ROWID"
log = logging.getLogger("iv")


def identity(path: Path, found: os.stat_result) -> str:
    """What stays while nobody writes to the file."""
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {path}"


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def database(place: Path | str) -> sqlite3.Connection:
    """The workspace's memory, made anew where it is damaged; an empty one where it cannot be had."""
    try:
        opened = sqlite3.connect(place, timeout=WAIT_S)
        opened.execute(TABLE)
        return opened
    except sqlite3.OperationalError as e:  # locked, or no room
        log.warning("%s: %s; every file is read", place, e)
        return database(":memory:")
    except sqlite3.DatabaseError as e:
        log.warning("%s: %s; it is made anew", place, e)
        Path(place).unlink(missing_ok=True)
        return database(place)


def recall(opened: sqlite3.Connection, names: list[str]) -> dict[str, str]:
    """sha256 by identity, of those that are known."""
    out: dict[str, str] = {}
    with contextlib.suppress(sqlite3.Error):
        for name in names:
            out |= dict(opened.execute("SELECT identity, sha256 FROM digests WHERE identity = ?", (name,)))
    return out


def keep(opened: sqlite3.Connection, new: dict[str, str]) -> None:
    """Remember these from now on."""
    with contextlib.suppress(sqlite3.Error), opened:
        opened.executemany("INSERT OR REPLACE INTO digests VALUES (?, ?)", new.items())
