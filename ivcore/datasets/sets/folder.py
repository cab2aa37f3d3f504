"""Your own videos: a folder, and if you have captions an annotation file beside it."""

from pathlib import Path
from typing import Any

from ivcore.config import DataConfig
from ivcore.datasets import annotation_files, files
from ivcore.datasets.cards import Card
from ivcore.datasets.text_length import text_class
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
EMPTY = ("split", "start_s", "end_s", "clip_id", "family")

Row = dict[str, Any]


def recipe(store: Store, data: DataConfig) -> dict[str, Any]:
    """Digests of the annotation file and of the bytes of every video; where the folder lies does not matter."""
    folder = files.root_folder(data)
    given = _given(data, folder)
    shares = {} if all(row.get("split") for row in given) else {"shares": list(data.shares)}
    file = _annotation_file(data, folder)
    videos = files.digests(store, folder, (row for row in given if row.get("error") != annotation_files.BAD_ROW))
    return {"dataset": "folder", "annotations_sha256": sha256_file(file) if file else None, **videos, **shares}


def root(store: Store, data: DataConfig) -> Path:
    """data.root, resolved; UserError when it is not a folder."""
    return files.root_folder(data)


def rows(data: DataConfig, root: Path) -> tuple[list[Row], list[Row]]:
    """Clips and captions. Rows of the annotation that name the same clip give it several captions.

    A row that cannot be used is a clip with an error; UserError when none can be.
    """
    clips: dict[str, Row] = {}
    captions: list[Row] = []
    for n, given in enumerate(_given(data, root), 1):
        if given.get("error") == annotation_files.BAD_ROW:
            clips[given["clip_id"]] = given
            continue
        clip_id = given["clip_id"] or _clip_id(given)
        clip = {k: v for k, v in given.items() if k not in ("captions", "language")} | {"clip_id": clip_id}
        if clips.setdefault(clip_id, clip) != clip:
            why = f": clip {clip_id!r} stands twice, with another path, split, family or times; make them equal"
            bad = annotation_files.refused(str(_annotation_file(data, root)), clip["path"], n, why)
            clips[bad["clip_id"]] = bad
            continue
        for text in given["captions"]:
            ids = {"caption_id": f"{clip_id}#{len(captions):07d}", "clip_id": clip_id}
            kind = {"language": given["language"], "text_class": text_class(text)}
            captions.append({**ids, **kind, "caption": text})
    return list(clips.values()), captions


def unlisted(data: DataConfig, root: Path) -> list[str]:
    """Videos of the folder that the annotation does not name."""
    if _annotation_file(data, root) is None:
        return []
    named = {row["path"] for row in _given(data, root)}
    return [video["path"] for video in files.Place(data, root).videos() if video["path"] not in named]


def _given(data: DataConfig, folder: Path) -> list[Row]:
    """Rows of the annotation, or one for every video of the folder; each path is inside the folder, or has an error."""
    file, place = _annotation_file(data, folder), files.Place(data, folder)
    if file is not None:
        out = annotation_files.read(file)
        for row in out:
            if "error" not in row:
                row |= place.row(row["path"])
    else:
        out = [{**dict.fromkeys(EMPTY), "captions": [], "language": "en"} | video for video in place.videos()]
    if not out:
        raise UserError(f"data.root = {str(folder)!r} holds no video; known are {' '.join(files.VIDEO_SUFFIXES)}")
    files.need_one(out, file or folder)
    return out


def _annotation_file(data: DataConfig, folder: Path) -> Path | None:
    """data.annotations, else the captions.csv that lies in the folder, if one does."""
    if data.annotations is not None:
        return Path(data.annotations)
    return folder / files.BESIDE if (folder / files.BESIDE).is_file() else None


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
