"""Damage at rest: a file of an artifact is compared with its record before it is used, and the damaged one set aside.

Files are read whole, once while they stay as they are (see known_files.py). Not so the large tables (BULK): each of
their pages has a checksum that is compared whenever it is read, so here it is their footer alone. A disk that changes
bytes and no times is noticed by `iv doctor --verify`, which reads everything.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ivcore.errors import WorkError
from ivcore.store.known_files import SETTLED_S, database, identity, keep, recall, sha256_file

RECORD = "record.json"
FILE = "verified.sqlite"  # in the workspace's cache; without it every file is read again
BULK = ("frames.parquet", "features.parquet", "views.parquet")
ASIDE = "damaged"  # folder of the workspace
_sound: set[str] = set()  # of this process, by identity


class Damaged(WorkError):
    """An artifact is not what was written. It is set aside, so that the step that makes it does so again."""


def check(path: Path) -> None:
    """Nothing where the file is as it was written, or is not of a finished artifact.

    Raises:
        Damaged: it is not, or is gone; its artifact is set aside.
    """
    folder = folder_of(path)
    if folder is None:
        return
    began, file = time.time(), path.relative_to(folder).as_posix()
    try:
        found = path.stat()
        name = identity(path, found)
        if name in _sound:
            return
        record = json.loads((folder / RECORD).read_bytes())
        wanted, footer = record["files"].get(file), record.get("footers", {}).get(file)
        settled = found.st_ctime < began - SETTLED_S
        if footer is not None:
            sound = footer == footer_sha256(path)
        else:
            sound = wanted in (None, _digest(folder.parents[2], path, name, settled))
    except FileNotFoundError:
        if file in _files(folder):
            raise damaged(path, "is gone") from None
        return  # it never had one
    if not sound:
        raise damaged(path, "is not as it was written")
    if settled:
        _sound.add(name)


def check_all(folder: Path) -> None:
    """`check` of every file of an artifact; nothing where the folder is none."""
    for file in _files(folder) if folder_of(folder / RECORD) else ():
        check(folder / file)


def fault(folder: Path) -> str | None:
    """The first file of an artifact that is not as it was written, whatever is remembered of it: all bytes are read."""
    for file, wanted in _files(folder).items():
        try:
            if sha256_file(folder / file) != wanted:
                return file
        except OSError:  # gone, or the disk cannot read it
            return file
    return None


def damaged(path: Path, what: str) -> Damaged:
    """Set the artifact of this file aside; the error to raise, which says so in a line."""
    folder = folder_of(path)
    if folder is None:
        return Damaged(f"{path} {what}; another process may be making it again: run again")
    home, id = folder.parents[2], f"{folder.parent.name}/{folder.name}"
    place = home / ASIDE / id
    number = 1
    while place.exists():
        number += 1
        place = place.with_name(f"{folder.name}-{number}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(place)
    except FileNotFoundError:  # another process was quicker
        pass
    except OSError as e:
        return Damaged(f"{path} {what} and cannot be set aside ({e.strerror}); delete {folder} and run again")
    return Damaged(f"{id} is damaged: {path.name} {what}; it is set aside in {place} and made again when it is needed")


def footer_sha256(path: Path) -> str:
    """Hex sha256 of what a Parquet file has after its pages: schema, where things are, its length."""
    size = path.stat().st_size
    with path.open("rb") as f:
        f.seek(max(size - 8, 0))
        length = int.from_bytes(f.read(4), "little")
        f.seek(max(size - 8 - length, 0))
        return hashlib.sha256(f.read()).hexdigest()


def folder_of(path: Path) -> Path | None:
    """The finished artifact that the file belongs to: HOME/artifacts/KIND/KEY."""
    for folder in path.parents:
        if folder.parent.parent.name == "artifacts" and not folder.name.startswith("."):
            return folder if (folder / RECORD).is_file() else None
    return None


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """The record with a digest of itself."""
    return {**record, "sha256": _seal(record)}


def unbroken(record: dict[str, Any]) -> bool:
    """The record is as it was sealed; those of earlier versions have no seal."""
    return record.get("sha256") in (None, _seal(record))


@contextlib.contextmanager
def pages(path: Path) -> Iterator[None]:
    """Errors of reading a Parquet file of an artifact, whose pages have checksums: `Damaged`."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError) as e:
        if folder_of(path) is None or getattr(e, "errno", None) is not None:
            raise
        raise damaged(path, "is not as it was written") from e


def _files(folder: Path) -> dict[str, str]:
    """Name -> sha256 of the files of an artifact; none where another process has just set it aside."""
    with contextlib.suppress(FileNotFoundError):
        files: dict[str, str] = json.loads((folder / RECORD).read_bytes())["files"]
        return files
    return {}


def _seal(record: dict[str, Any]) -> str:
    rest = {name: value for name, value in json.loads(json.dumps(record)).items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _digest(home: Path, path: Path, name: str, settled: bool) -> str:
    """sha256 of the file, read unless the workspace knows it."""
    place = home / "cache" / FILE
    with contextlib.suppress(OSError):
        place.parent.mkdir(exist_ok=True)
    with contextlib.closing(database(place)) as memory:
        known = recall(memory, [name]).get(name)
    if known is None:
        known = sha256_file(path)
        if settled:
            with contextlib.closing(database(place)) as memory:
                keep(memory, {name: known})
    return known
