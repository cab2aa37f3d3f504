"""The files of a data set: its folder, paths that stay inside it, and one digest over all videos."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ivcore.config import DataConfig
from ivcore.datasets.digests import remembered
from ivcore.errors import UserError
from ivcore.store.artifacts import Store

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts"),
    *(".mts", ".flv", ".wmv", ".asf", ".3gp", ".ogv", ".ogg", ".gif", ".vob", ".mxf"),
)


def root_folder(data: DataConfig) -> Path:
    """data.root, resolved; UserError when it is not a folder."""
    if data.root is None:
        raise UserError(f"data.root is not set; the {data.dataset} data set needs the folder that holds your videos")
    folder = Path(data.root).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"data.root = {data.root!r} is no folder; give the folder that holds your videos")
    return folder


def need(data: DataConfig) -> None:
    """Check that what the config names is there, before anything is started; UserError with the cure."""
    if data.root is not None:
        root_folder(data)
    if data.annotations is not None and not Path(data.annotations).exists():
        raise UserError(f"data.annotations = {data.annotations!r} is not there; give a file, or a data set's folder")


def digests(store: Store, folder: Path, paths: Iterable[str]) -> dict[str, Any]:
    """num_videos, and one digest over the names and bytes of them all."""
    paths = sorted(set(paths))
    found = remembered(store.home, [folder / path for path in paths])
    listing = hashlib.sha256(json.dumps(list(zip(paths, found))).encode()).hexdigest()
    return {"num_videos": len(paths), "videos_sha256": listing}


def on_disk(folder: Path, path: str, where: str) -> str:
    """The path below the folder, with the suffix that the file has there: many keep their videos as mp4."""
    path = inside(folder, path, where)
    if not (folder / path).exists():
        there = (Path(path).with_suffix(suffix) for suffix in VIDEO_SUFFIXES)
        return next((p.as_posix() for p in there if (folder / p).exists()), path)
    return path


def inside(folder: Path, path: str, where: str) -> str:
    """The path below the folder, with forward slashes; UserError when it leads out of it."""
    parts = Path(path).parts
    if "\0" in path or not path.isprintable():
        raise UserError(f"{where}: path = {path!r} has characters that cannot be kept; rename the file")
    if Path(path).is_absolute() or ".." in parts or not parts:
        raise UserError(f"{where}: path = {path!r} leaves data.root = {str(folder)!r}; give a path below it")
    if not (folder / path).resolve().is_relative_to(folder):
        raise UserError(f"{where}: path = {path!r} is a link out of data.root = {str(folder)!r}; copy the file there")
    return Path(path).as_posix()
