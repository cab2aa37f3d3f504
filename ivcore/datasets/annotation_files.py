"""An annotation file (csv, jsonl, json or Parquet) to plain rows; a wrong row is a row that says what is wrong."""

import ast
import csv
import difflib
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ivcore.datasets import csv_files
from ivcore.datasets.files import VIDEO_SUFFIXES, shown
from ivcore.errors import UserError
from ivcore.video import images

SPLITS = ("train", "val", "test")
LANGUAGES = ("en", "zh", "es")
FIELDS = ("path", "caption", "language", "split", "start_s", "end_s", "clip_id", "family")  # others are not read
BAD_ROW = "bad_row"  # the reason of a row that cannot be read
UNSEPARATED = re.compile(r"""['"]\s+['"]""")  # texts without a comma between them, as numpy prints them

Row = dict[str, Any]


class Wrong(Exception):
    """What is wrong with a row."""


def read(file: Path) -> list[Row]:
    """Rows: path, captions (list), language, split or None, start_s, end_s, clip_id or None, family or None.

    A row that cannot be read has path, clip_id (FILE row N), error and detail instead.

    Raises:
        UserError: the file is not there, cannot be parsed or is empty, or not one of its rows can be read.
    """
    if not file.is_file():
        raise UserError(f"data.annotations = {str(file)!r} is no file; give a csv, jsonl, json or Parquet file")
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _jsonl, ".json": _json, ".parquet": _parquet}
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
    return [_row(row, file, n) for n, row in enumerate(raw, 1)]


def refused(file: Path | str, path: str, n: int, why: str) -> Row:
    """The row that stands for row `n` of the file, which cannot be used."""
    return {"path": path, "clip_id": f"{Path(file).name} row {n}", "error": BAD_ROW, "detail": f"row {n}{why}"}


def _row(raw: Any, file: Path, n: int) -> Row:
    try:
        return _checked(raw)
    except Wrong as e:
        path = raw.get("path") if isinstance(raw, dict) else None
        return refused(file, shown(path) if isinstance(path, str) else "", n, str(e))


def _csv(file: Path) -> list[Row]:
    ending = (*VIDEO_SUFFIXES, *images.SUFFIXES)
    return csv_files.read(file, known="path", several=("caption",), ending=ending)


def _jsonl(file: Path) -> list[Row]:
    text = csv_files.text_of(file)
    return [json.loads(line, object_pairs_hook=_object) for line in text.split("\n") if line.strip()]


def _json(file: Path) -> list[Row]:
    rows = json.loads(csv_files.text_of(file), object_pairs_hook=_object)
    if not isinstance(rows, list):
        raise ValueError("the outermost value is no list")
    return rows


def _object(pairs: list[tuple[str, Any]]) -> Row:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"an object has {max(names, key=names.count)!r} twice")
    return found


def _parquet(file: Path) -> list[Row]:
    table = pq.read_table(file)
    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError(f"a column stands twice among {', '.join(table.column_names)}")
    rows: list[Row] = table.to_pylist()
    return rows


def _texts(value: Any) -> list[str]:
    """The captions of a row: a text, a list of texts, or such a list printed as one text."""
    out: list[str] = []
    for text in value if isinstance(value, list) else [value]:
        if not isinstance(text, str) or not text.strip():
            raise Wrong(f": caption = {value!r:.60} is neither a text nor a list of texts")
        if text.strip() in ("nan", "NaN"):
            raise Wrong(f": caption = {text!r} is an empty cell that pandas wrote out")
        printed = text.strip()
        if printed[0] != "[" or printed[-1] != "]" or printed[1:2] not in ("'", '"'):
            out.append(text)
            continue
        try:
            many = ast.literal_eval(printed)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            many = None
        if UNSEPARATED.search(printed) or not isinstance(many, list) or not all(isinstance(c, str) for c in many):
            raise Wrong(f" has caption = {text!r:.60}, a printed list that cannot be read; write a row a caption")
        out += [caption for caption in many if caption.strip()]
    return out


def _checked(row: Any) -> Row:
    if not isinstance(row, dict):
        raise Wrong(f" is {row!r:.60}; it must have named fields such as path and caption")
    if None in row:  # what csv does with fields beyond the header
        raise Wrong(" has more fields than the header; put quotes around captions with commas")
    for name in set(map(str, row)) - set(FIELDS):
        if near := difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.65):
            raise Wrong(f" has {name!r}, which is not read; if it is meant, call it {near[0]!r}")
    row = {k: v.strip() if k in ("language", "split") and isinstance(v, str) else v for k, v in row.items()}
    row = {k: v for k, v in row.items() if v not in (None, "")}
    if "path" not in row:
        named = ", ".join(map(str, row)) or "nothing"
        raise Wrong(f" has no path, only {named}; every row needs the path of a video, by that name")
    if not isinstance(row["path"], str):
        raise Wrong(f": path = {row['path']!r} is no text; every row needs the path of a video")
    captions = _texts(row["caption"]) if "caption" in row else []
    language, split = row.get("language", "en"), row.get("split")
    if language not in LANGUAGES:
        raise Wrong(f": language = {language!r} is unknown; known: {', '.join(LANGUAGES)}")
    if split is not None and split not in SPLITS:
        raise Wrong(f": split = {split!r} is unknown; known: {', '.join(SPLITS)}, or leave it out")
    start_s, end_s = _seconds(row, "start_s"), _seconds(row, "end_s")
    if end_s is not None and end_s <= (start_s or 0.0):
        raise Wrong(f": end_s = {end_s:g} is not after start_s = {start_s or 0.0:g}")
    names = {k: str(row[k]) if k in row else None for k in ("clip_id", "family")}
    for text in (*captions, *filter(None, names.values())):
        if shown(text) != text:
            raise Wrong(f": {text!r:.60} is no whole Unicode text; write it anew")
    window = {"start_s": start_s, "end_s": end_s}
    return {"path": row["path"], "split": split, **window, "captions": captions, "language": language, **names}


def _seconds(row: Row, name: str) -> float | None:
    if name not in row:
        return None
    try:
        seconds = float(row[name])
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise Wrong(f": {name} = {row[name]!r} is no number of seconds from 0")
    return seconds
