"""Step 1: a data set's rows -> manifest.parquet and captions.parquet, with probed facts and the sha256 of each file."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from ivcore.config import DataConfig
from ivcore.datasets import digests
from ivcore.errors import UserError
from ivcore.store import schemas
from ivcore.store.artifacts import Draft, Store
from ivcore.store.known_files import sha256_file
from ivcore.store.log import Log
from ivcore.video import images, pool
from ivcore.video.probe import Unusable, probe, regular_file

SPLITS = ("test", "val", "train")
FACTS = ("duration_s", "width", "height", "fps", "codec")
DEADLINE_S = 60.0  # for the header of a file and its sha256

Row = dict[str, Any]
EMPTY: Row = {"sha256": "", "bytes": 0, **dict.fromkeys(FACTS), "error": None}


def write_manifest(draft: Draft, dataset: ModuleType, store: Store, data: DataConfig, log: Log) -> None:
    """Write both tables, sorted by clip_id and caption_id; a file that cannot be used is a row with an error.

    Raises:
        UserError: the data set has no clips, or a clip_id or caption_id twice.
    """
    root = dataset.root(store, data)
    clips, captions = dataset.rows(data, root)
    if not clips:
        raise UserError(f"data set {data.dataset} has no clips; look at data.root and data.annotations")
    _unique("clip_id", clips)
    _unique("caption_id", captions)
    clips = sorted(clips, key=lambda c: c["clip_id"])
    paths = sorted({c["path"] for c in clips})
    spent: list[float] = []
    probed = dict(zip(paths, _probed(root, paths, log, spent.append)))
    draft.workers_cpu_s = sum(spent)
    usual = {"source": data.dataset, "weight": 1}
    rows = [{**usual, **clip, **probed[clip["path"]], "media": _media(clip["path"])} for clip in clips]
    kept = _marked(rows)
    captions = [{**caption, "clip_id": kept.get(caption["clip_id"], caption["clip_id"])} for caption in captions]
    failed = sum(row["error"] is not None for row in rows)
    schemas.write(draft.path / "manifest.parquet", rows, schemas.MANIFEST)
    schemas.write(draft.path / "captions.parquet", sorted(captions, key=lambda c: c["caption_id"]), schemas.CAPTIONS)
    pairs = _pairs(captions, kept)
    if pairs:  # most data sets have none: a caption belongs to its clip
        schemas.write(draft.path / "pairs.parquet", pairs, schemas.PAIRS)
    draft.count(len(rows) - failed, failed)
    draft.facts |= {"card": dataset.CARD.facts(), "num_captions": len(captions), "clips": _by_split(rows)}
    draft.facts |= {"duplicates": len(kept)}


def _probed(root: Path, paths: list[str], log: Log, spent: Callable[[float], None]) -> list[Row]:
    """What `file_row` says of each file, in order; a file that hangs the prober is given up."""
    out: list[Row] = []
    failed = 0
    # What the recipe read is not read again; the rest has a deadline there.
    files = ((root / path, digests.known(root / path)) for path in paths)
    outcomes = pool.run(file_row, files, pool.num_workers(0), DEADLINE_S, spent=spent)
    for found in tqdm(outcomes, "ingest", len(paths), unit="file", disable=None):
        if isinstance(found, pool.Lost):
            found = {**EMPTY, "error": found.reason}
        out.append(found)
        failed += found["error"] is not None
        if len(out) % 500 == 0 or len(out) == len(paths):
            log({"files": len(out), "files_failed": failed}, len(out))
    return out


def file_row(file: tuple[Path, str | None]) -> Row:
    """sha256 (given, or read now), bytes, facts and error of one file; sha256 is "" for what has no bytes to read."""
    path, sha256 = file
    row = dict(EMPTY)
    try:
        row["bytes"] = regular_file(path).st_size
        row["sha256"] = sha256 or sha256_file(path)
        facts = images.probe(path) if images.is_image(path) else probe(path)
        row |= {name: facts[name] for name in FACTS}
    except Unusable as e:
        row["error"] = e.reason
    except OSError:
        row["error"] = "unreadable"
    return row


def _media(path: str) -> str:
    return "image" if images.is_image(path) else "video"


def _marked(rows: list[Row]) -> dict[str, str]:
    """Mark all but one of the clips of equal bytes and times as `duplicate`; their clip_id -> the clip_id that stays.

    The one of the test split stays, then val, then train, so that nothing is trained on that is scored.
    """
    stays: dict[tuple[Any, ...], Row] = {}
    kept: dict[str, str] = {}
    for row in sorted(rows, key=lambda row: (SPLITS.index(row["split"]), row["clip_id"])):
        if row["error"] is None:
            first = stays.setdefault((row["sha256"], row["start_s"], row["end_s"]), row)
            if first is not row:
                row["error"], kept[row["clip_id"]] = schemas.DUPLICATE, first["clip_id"]
    return kept


def _pairs(captions: list[Row], kept: dict[str, str]) -> list[Row]:
    """Rows of PAIRS: which captions are put to clips that they do not belong to, and which are true of them."""
    found = {
        (caption["caption_id"], kept.get(clip_id, clip_id)): relevant
        for caption in captions
        for clip_id, relevant in caption.get("pairs", ())
    }
    return [{"caption_id": t, "clip_id": c, "relevant": found[t, c]} for t, c in sorted(found)]


def _unique(name: str, rows: list[Row]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row[name] in seen:
            raise UserError(f"{name} {row[name]!r} stands twice in the data set; make it unique")
        seen.add(row[name])


def _by_split(rows: list[Row]) -> dict[str, int]:
    return {split: sum(r["split"] == split for r in rows) for split in sorted({r["split"] for r in rows})}
