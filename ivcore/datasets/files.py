"""The files of a data set: its folder, the videos in it, paths that stay inside it, and one digest over all videos.

Links are followed where they end inside data.root or a folder of data.link_roots. A Hugging Face snapshot (links to
../../blobs) needs no word: the blobs beside it belong to it.
"""

import hashlib
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ivcore.config import DataConfig
from ivcore.datasets.digests import remembered
from ivcore.errors import UserError
from ivcore.store.artifacts import Store
from ivcore.video.probe import Unusable

VIDEO_SUFFIXES = (
    *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts"),
    *(".mts", ".flv", ".wmv", ".asf", ".3gp", ".ogv", ".ogg", ".gif", ".vob", ".mxf"),
)
HALF = re.compile("[\ud800-\udfff]")  # what stands for a byte that is no UTF-8, or is half of a character
BESIDE = "captions.csv"  # lies in the folder, and is read where data.annotations is not set
OUTSIDE, BAD_NAME = "outside", "bad_name"  # reasons: it leads out of data.root; its name cannot be kept

Row = dict[str, Any]


def root_folder(data: DataConfig) -> Path:
    """data.root, resolved; UserError when it is not a folder."""
    if data.root is None:
        raise UserError(f"data.root is not set; the {data.dataset} data set needs the folder that holds your videos")
    return _folder("data.root", data.root)


def need(data: DataConfig, captions: bool = False) -> None:
    """Check that what the config names is there, before anything is started; UserError with the cure.

    `captions`: a folder's own, too, which training and scoring cannot do without.
    """
    if data.root is not None:
        root_folder(data)
    for root in data.link_roots:
        _folder("data.link_roots", root)
    if data.annotations is not None and not Path(data.annotations).exists():
        raise UserError(f"data.annotations = {data.annotations!r} is not there; give a file, or a data set's folder")
    own = data.dataset == "folder" and data.root is not None and data.annotations is None
    if captions and own and not (root_folder(data) / BESIDE).exists():
        cure = f"`iv init {data.root}` writes one to fill in, or name yours in data.annotations"
        raise UserError(f"{data.root} has no {BESIDE}; {cure}")


def need_one(found: list[Row], where: Path | str | None) -> None:
    """UserError with the first reason, where not one row can be used as it is written."""
    if all("error" in row for row in found):
        raise UserError(f"{where}: nothing can be used; {found[0]['path']!r}: {found[0]['detail']}")


def digests(store: Store, folder: Path, found: Iterable[Row]) -> dict[str, Any]:
    """num_videos, and one digest over the rows' names and bytes; a file whose row has an error is not read."""
    reasons = {row["path"]: row.get("error") for row in found}
    paths = sorted(reasons)
    read = iter(remembered(store.home, [folder / path for path in paths if reasons[path] is None]))
    listing = [(path, reasons[path] or next(read)) for path in paths]
    return {"num_videos": len(paths), "videos_sha256": hashlib.sha256(json.dumps(listing).encode()).hexdigest()}


class Place:
    """The folder of a data set, and the further folders that links in it may lead to."""

    def __init__(self, data: DataConfig, folder: Path) -> None:
        self.folder = folder
        self.roots = [folder, *(_folder("data.link_roots", root) for root in data.link_roots), *_blobs(folder)]

    def inside(self, path: str) -> str:
        """The path below the folder, with forward slashes; Unusable if it leads out of it, or no table can hold it."""
        if shown(path) != path:
            raise Unusable(BAD_NAME, f"{shown(path)} is not UTF-8; rename the file")
        if "\0" in path:
            raise Unusable(BAD_NAME, f"{path!r} holds a NUL, which no file name has")
        if Path(path).is_absolute() and Path(path).is_relative_to(self.folder):
            path = str(Path(path).relative_to(self.folder))
        if Path(path).is_absolute() or ".." in Path(path).parts or not Path(path).parts:
            raise Unusable(OUTSIDE, f"leaves data.root = {str(self.folder)!r}; give a path below it")
        self._end_of(path)
        return Path(path).as_posix()

    def row(self, path: str) -> Row:
        """The row's path; where it is no path of this folder, error and detail too."""
        try:
            return {"path": self.inside(path)}
        except Unusable as e:
            return {"path": shown(path), "error": e.reason, "detail": e.detail}

    def on_disk(self, path: str) -> Row:
        """As `row`, with the suffix that the file has on the disk: many keep their videos as mp4."""
        row = self.row(path)
        if "error" not in row and not os.path.exists(self.folder / row["path"]):
            there = (Path(row["path"]).with_suffix(suffix) for suffix in VIDEO_SUFFIXES)
            row["path"] = next((p.as_posix() for p in there if os.path.exists(self.folder / p)), row["path"])
        return row

    def videos(self) -> list[Row]:
        """A row for each video below the folder, sorted; hidden files (of Macs: ._NAME) and folders are passed over.

        A linked folder is followed where it leads into another root; one that leads elsewhere is a row with an error.
        """
        return sorted((self.row(path) for path in self._walk("")), key=lambda row: row["path"])

    def _walk(self, below: str, within: frozenset[str] = frozenset()) -> Iterator[str]:
        within |= {os.path.realpath(self.folder / below)}
        try:
            entries = list(os.scandir(self.folder / below))
        except OSError:
            yield below or "."  # a row that says so
            return
        for entry in entries:
            path = os.path.join(below, entry.name)
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                if Path(entry.name).suffix.lower() in VIDEO_SUFFIXES:
                    yield path
            elif not entry.is_symlink():
                yield from self._walk(path, within)
            else:
                end = Path(os.path.realpath(entry.path))
                if end.is_relative_to(self.folder) or str(end) in within:
                    continue  # its videos are found where they lie
                if any(end.is_relative_to(root) for root in self.roots):
                    yield from self._walk(path, within)
                else:
                    yield path  # a row that says so

    def _end_of(self, path: str) -> None:
        end = Path(os.path.realpath(self.folder / path))
        if not any(end.is_relative_to(root) for root in self.roots):
            told = f"is a link to {shown(str(end))}, out of data.root = {str(self.folder)!r}"
            raise Unusable(OUTSIDE, f"{told}; copy it there, or name the folder it leads to in data.link_roots")


class Nearby:
    """Looks for a file that is not there under names that look alike: other slashes, case, blanks or Unicode form."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._listed: dict[Path, dict[str, str]] = {}

    def find(self, path: str) -> str:
        """What is there instead, as a detail for the row; "" when nothing is."""
        there = self.folder
        for part in Path(path.replace("\\", "/")).parts:
            name = self._names(there).get(_folded(part))
            if name is None:
                return ""
            there = there / name
        return f"{shown(str(there))} is there" if there.is_file() else ""

    def _names(self, folder: Path) -> dict[str, str]:
        if folder not in self._listed:
            try:
                self._listed[folder] = {_folded(name): name for name in sorted(os.listdir(folder))}
            except OSError:
                self._listed[folder] = {}
        return self._listed[folder]


def shown(name: str) -> str:
    r"""The name as text that any table holds: bytes that are not UTF-8 as \xNN, half a character as \uNNNN.

    >>> shown("caf\udce9.mp4")
    'caf\\xe9.mp4'
    """
    return HALF.sub(lambda c: f"\\x{ord(c[0]) - 0xDC00:x}" if c[0] >= "\udc80" else f"\\u{ord(c[0]):x}", name)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold().strip()


def _folder(option: str, path: str) -> Path:
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"{option} = {path!r} is no folder; give the folder that holds your videos")
    return folder


def _blobs(folder: Path) -> list[Path]:
    """REPOSITORY/blobs, where `folder` lies in REPOSITORY/snapshots: Hugging Face's cache."""
    snapshots = [p for p in (folder, *folder.parents) if p.name == "snapshots" and (p.parent / "blobs").is_dir()]
    return [(p.parent / "blobs").resolve() for p in snapshots]
