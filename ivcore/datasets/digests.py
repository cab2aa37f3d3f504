"""sha256 of the files of a data set, remembered in the workspace: a night reads the bytes of new files alone."""

import contextlib
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ivcore.store.known_files import SETTLED_S, database, identity, keep, recall, sha256_file
from ivcore.video.probe import Unusable, regular_file

FILE = "digests.sqlite"  # in the workspace's cache; without it everything is read once
PART = 256  # files between two commits: what a stopped night does not read again

_known: dict[str, str] = {}  # of this process, by identity


def remembered(home: Path, paths: Sequence[Path]) -> list[str]:
    """sha256 in hex of each file, or the reason why there is none; read are those that the workspace does not know."""
    out: list[str] = []
    place = home / "cache" / FILE
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(database(place)) as memory, ThreadPoolExecutor() as threads:
        for start in range(0, len(paths), PART):
            part, began = paths[start : start + PART], time.time()
            seen = {identity(path, found): found for path in part if (found := _stat(path))}
            have = recall(memory, list(seen))
            _known.update(have)
            out += threads.map(digest, part)
            settled = {name for name, found in seen.items() if found.st_ctime < began - SETTLED_S}
            keep(memory, {name: _known[name] for name in settled & _known.keys() - have.keys()})
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


def _stat(path: Path) -> os.stat_result | None:
    try:
        return regular_file(path)
    except (Unusable, OSError):
        return None
