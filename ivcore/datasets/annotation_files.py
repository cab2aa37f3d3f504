"""An annotation file (csv, jsonl, json or Parquet) to plain rows, with its mistakes named by row."""

import csv
import difflib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ivcore.errors import UserError

SPLITS = ("train", "val", "test")
LANGUAGES = ("en", "zh", "es")
FIELDS = ("path", "caption", "language", "split", "start_s", "end_s", "clip_id", "family")  # others are not read

Row = dict[str, Any]


def read(file: Path) -> list[Row]:
    """Checked rows: path, captions (list), language, split or None, start_s, end_s, clip_id or None, family or None.

    Raises:
        UserError: the file is not there, cannot be parsed or is empty, or a row has a wrong value (row named from 1).
    """
    if not file.is_file():
        raise UserError(f"data.annotations = {str(file)!r} is no file; give a csv, jsonl, json or Parquet file")
    readers = {".csv": _csv, ".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise UserError(f"data.annotations = {str(file)!r} is of no known kind; known: {', '.join(readers)}")
    try:
        raw = reader(file)
    except UnicodeDecodeError as e:
        raise UserError(f"{file} is not UTF-8 at byte {e.start}; save it as UTF-8") from None
    except (ValueError, csv.Error, pa.ArrowException) as e:
        cure = "" if reader is _parquet else "; look for a quote or bracket left open"
        raise UserError(f"{file} cannot be read as {file.suffix.lower()[1:]}: {e}{cure}") from None
    if not raw:
        raise UserError(f"{file} has no rows; it needs one a caption or clip, with a path")
    return [_checked(row, f"{file} row {n}") for n, row in enumerate(raw, 1)]


def _csv(file: Path) -> list[Row]:
    with file.open(newline="", encoding="utf-8-sig") as f:
        return list(csv.DictReader(f, strict=True))


def _jsonl(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]


def _json(file: Path) -> list[Row]:
    rows = json.loads(file.read_text(encoding="utf-8-sig"))
    if not isinstance(rows, list):
        raise ValueError("the outermost value is no list")
    return rows


def _parquet(file: Path) -> list[Row]:
    rows: list[Row] = pq.read_table(file).to_pylist()
    return rows


def _checked(row: Any, where: str) -> Row:
    if not isinstance(row, dict):
        raise UserError(f"{where} is {row!r:.60}; it must have named fields such as path and caption")
    if None in row:  # what csv does with fields beyond the header
        raise UserError(f"{where} has more fields than the header; put quotes around captions with commas")
    for name in set(map(str, row)) - set(FIELDS):
        if near := difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.65):
            raise UserError(f"{where} has {name!r}, which is not read; if it is meant, call it {near[0]!r}")
    row = {k: v for k, v in row.items() if v not in (None, "")}
    if "path" not in row:
        named = ", ".join(map(str, row)) or "nothing"
        raise UserError(f"{where} has no path, only {named}; every row needs the path of a video, by that name")
    if not isinstance(row["path"], str):
        raise UserError(f"{where}: path = {row['path']!r} is no text; every row needs the path of a video")
    captions = row.get("caption", [])
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not all(isinstance(c, str) and c.strip() for c in captions):
        raise UserError(f"{where}: caption = {captions!r:.60} is neither a text nor a list of texts")
    language, split = row.get("language", "en"), row.get("split")
    if language not in LANGUAGES:
        raise UserError(f"{where}: language = {language!r} is unknown; known: {', '.join(LANGUAGES)}")
    if split is not None and split not in SPLITS:
        raise UserError(f"{where}: split = {split!r} is unknown; known: {', '.join(SPLITS)}, or leave it out")
    start_s, end_s = _seconds(row, "start_s", where), _seconds(row, "end_s", where)
    if end_s is not None and end_s <= (start_s or 0.0):
        raise UserError(f"{where}: end_s = {end_s:g} is not after start_s = {start_s or 0.0:g}")
    names = {k: str(row[k]) if k in row else None for k in ("clip_id", "family")}
    window = {"start_s": start_s, "end_s": end_s}
    return {"path": row["path"], "split": split, **window, "captions": captions, "language": language, **names}


def _seconds(row: Row, name: str, where: str) -> float | None:
    if name not in row:
        return None
    try:
        seconds = float(row[name])
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(f"{where}: {name} = {row[name]!r} is no number of seconds from 0")
    return seconds
