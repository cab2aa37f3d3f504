"""What is written stays written: it is made aside, flushed to disk, and only then given its name."""

import contextlib
import glob
import itertools
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

_numbers = itertools.count()  # so that threads that write one thing do not meet
_ours: set[str] = set()  # names that this process writes under just now


def mark() -> str:
    """A name that nobody else writes under: machine, process, number."""
    return f"{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(folder: Path) -> None:
    """Flush every file below a folder, then the folders, to disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        sync(path)
    sync(folder)


@contextlib.contextmanager
def name_aside(final: Path) -> Iterator[Path]:
    """A free name on the disk of the final one: beside it, or above where that folder is not made yet.

    What is under it at the end goes, and so does what processes of this machine that are dead left of the same name.
    """
    parent = next(folder for folder in final.absolute().parents if folder.is_dir())
    start = f".{final.name}.{socket.gethostname()}."
    for left in parent.glob(f"{glob.escape(start)}*.tmp"):
        pid = left.name.removeprefix(start).split(".")[0]
        if pid.isdigit() and left.name not in _ours and (int(pid) == os.getpid() or not Path(f"/proc/{pid}").exists()):
            _remove(left)
    path = parent / f".{final.name}.{mark()}.tmp"
    _ours.add(path.name)
    try:
        yield path
    finally:
        _remove(path)
        _ours.discard(path.name)


@contextlib.contextmanager
def aside(final: Path) -> Iterator[Path]:
    """A folder to write into under a name aside; `put_folder` gives it the final one."""
    with name_aside(final) as folder:
        folder.mkdir()
        yield folder


@contextlib.contextmanager
def written(final: Path) -> Iterator[Path]:
    """A name to write a file under; at the end it is flushed and gets the final one. Readers see the old or the new."""
    with name_aside(final) as path:
        yield path
        sync(path)
        path.replace(final)
        sync(final.absolute().parent)


def put(path: Path, text: str) -> None:
    """Write a small file, making the folder it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written(path) as made:
        made.write_text(text, encoding="utf-8")


def put_folder(made: Path, final: Path) -> None:
    """Flush a whole folder and give it its name; OSError where a folder that is not empty has it already."""
    sync_tree(made)
    made.rename(final)
    sync(final.absolute().parent)


def put_link(link: Path, target: str) -> None:
    """Make a symbolic link, or point it elsewhere, in one move."""
    with name_aside(link) as made:
        made.symlink_to(target)
        made.replace(link)
    sync(link.absolute().parent)


def drop(path: Path) -> None:
    """Delete a file or folder; nobody sees a part of it, whenever this is stopped."""
    with name_aside(path) as gone:
        path.rename(gone)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
