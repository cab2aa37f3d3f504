"""Your own videos: a folder, and if you have captions an annotation file beside it."""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from ivcore.config import DataConfig
from ivcore.datasets import annotation_files, files
from ivcore.datasets.cards import Card
from ivcore.datasets.digests import digest
from ivcore.errors import UserError
from ivcore.store.artifacts import Store
from ivcore.store.known_files import sha256_file

CARD = Card(
    name="A folder of videos",
    split="train, val, test: as you say, else data.shares by content",
    caption_rule="each",
    languages=annotation_files.LANGUAGES,
    licence="that of your videos",
    citation="none",
)
BESIDE = "captions.csv"  # read where data.annotations is not set
LONG_WORDS = 32  # a caption of more words is long
WORD = re.compile(r"[\u3400-\u9fff]|[^\s\u3400-\u9fff]+")  # Chinese has no spaces: each character counts as one

Row = dict[str, Any]


def recipe(store: Store, data: DataConfig) -> dict[str, Any]:
    """Digests of the annotation file and of the bytes of every video; where the folder lies does not matter."""
    folder = files.root_folder(data)
    given = _given(data, folder)
    shares = {} if all(row["split"] for row in given) else {"shares": list(data.shares)}
    file = _annotation_file(data, folder)
    videos = files.digests(store, folder, (row["path"] for row in given))
    return {"dataset": "folder", "annotations_sha256": sha256_file(file) if file else None, **videos, **shares}


def root(store: Store, data: DataConfig) -> Path:
    """data.root, resolved; UserError when it is not a folder."""
    return files.root_folder(data)


def rows(data: DataConfig, root: Path) -> tuple[list[Row], list[Row]]:
    """Clips and captions. Rows of the annotation that name the same clip give it several captions.

    Raises:
        UserError: a path leaves the root, or rows of one clip contradict each other.
    """
    clips: dict[str, Row] = {}
    captions: list[Row] = []
    for given in _given(data, root):
        clip_id = given["clip_id"] or _clip_id(given)
        clip = {name: given[name] for name in ("path", "start_s", "end_s")}
        clip |= {"clip_id": clip_id, "family": given["family"] or clip_id}
        clip["split"] = given["split"] or _split(root / given["path"], data.shares)
        if clips.setdefault(clip_id, clip) != clip:
            file = _annotation_file(data, root)
            raise UserError(f"clip {clip_id!r} stands twice in {file} with other path, times or split")
        for text in given["captions"]:
            text_class = "long" if len(WORD.findall(text)) > LONG_WORDS else "short"
            ids = {"caption_id": f"{clip_id}#{len(captions):07d}", "clip_id": clip_id}
            captions.append({**ids, "language": given["language"], "text_class": text_class, "caption": text})
    return list(clips.values()), captions


def _given(data: DataConfig, folder: Path) -> list[Row]:
    """Rows of the annotation, or one for every video of the folder; each path is inside the folder."""
    file = _annotation_file(data, folder)
    if file is not None:
        out = annotation_files.read(file)
        for n, row in enumerate(out, 1):
            row["path"] = files.inside(folder, row["path"], f"{file} row {n}")
        return out
    found = sorted(
        Path(parent, name).relative_to(folder)
        for parent, _, names in os.walk(folder)
        for name in names
        if Path(name).suffix.lower() in files.VIDEO_SUFFIXES
    )
    if not found:
        raise UserError(f"data.root = {str(folder)!r} holds no video; known are {' '.join(files.VIDEO_SUFFIXES)}")
    empty: Row = {**dict.fromkeys(("split", "start_s", "end_s", "clip_id", "family")), "captions": [], "language": "en"}
    return [{**empty, "path": files.inside(folder, str(path), str(folder))} for path in found]


def _annotation_file(data: DataConfig, folder: Path) -> Path | None:
    """data.annotations, else the captions.csv that lies in the folder, if one does."""
    if data.annotations is not None:
        return Path(data.annotations)
    return folder / BESIDE if (folder / BESIDE).is_file() else None


def _clip_id(row: Row) -> str:
    if row["start_s"] is None and row["end_s"] is None:
        return str(row["path"])
    return f"{row['path']}@{_seconds(row['start_s'] or 0.0)}-{'' if row['end_s'] is None else _seconds(row['end_s'])}"


def _seconds(value: float) -> str:
    """As short as it can be without becoming another time.

    >>> _seconds(2.0), _seconds(12345.678)
    ('2', '12345.678')
    """
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def _split(path: Path, shares: tuple[float, float, float]) -> str:
    """Drawn by content, so that copies of a video stay in one split and a new video moves no other."""
    found = digest(path)
    text = found if len(found) == 64 else path.name
    number = int(hashlib.sha256(f"split {text}".encode()).hexdigest(), 16)
    drawn = (number % 10 + number // 10 % 100 / 100) / 10
    train, val, _ = shares
    return "train" if drawn < train else "val" if drawn < train + val else "test"
