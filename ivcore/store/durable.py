"""What is written stays written: flushed to disk before its name is seen."""

import contextlib
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path


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


def put(path: Path, text: str) -> None:
    """Write a file aside, flush it and give it its name: who reads sees the old text or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_text(text, encoding="utf-8")
    sync(aside)
    aside.replace(path)
    sync(path.parent)


def put_folder(made: Path, final: Path) -> None:
    """Flush a whole folder and give it its name; OSError where a folder that is not empty has it already."""
    sync_tree(made)
    made.rename(final)
    sync(final.absolute().parent)


def put_link(link: Path, target: str) -> None:
    """Make a symbolic link, or point it elsewhere, in one move."""
    aside = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target)
    aside.replace(link)
    sync(link.parent)


@contextlib.contextmanager
def aside(final: Path) -> Iterator[Path]:
    """A folder on the disk of the final one to write into: beside it, or above where that folder is not made yet.

    What is left in it at the end goes, and so does what processes of this machine that are dead left of the same name.
    """
    parent = next(folder for folder in final.parents if folder.is_dir())
    mark = f".{final.name}.{socket.gethostname()}."
    for left in parent.glob(f"{mark}*.tmp"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and (int(pid) == os.getpid() or not Path(f"/proc/{pid}").exists()):
            shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"{mark}{os.getpid()}.tmp"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
