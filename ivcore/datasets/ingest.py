"""Step 1: a data set's rows -> manifest.parquet and captions.parquet, with probed facts and the sha256 of each file."""

import collections
import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from tqdm import tqdm

from ivcore.config import DataConfig
from ivcore.datasets import digests, leakage
from ivcore.datasets.files import Nearby
from ivcore.errors import UserError
from ivcore.store import schemas
from ivcore.store.artifacts import Draft, Store
from ivcore.store.known_files import sha256_file
from ivcore.store.log import Log
from ivcore.video import failed_share, images, pool
from ivcore.video.probe import Unusable, probe, regular_file

FACTS = ("duration_s", "width", "height", "fps", "codec")
DEADLINE_S = 60.0  # for the header of a file and its sha256
said = logging.getLogger("iv.datasets")

Row = dict[str, Any]
EMPTY: Row = {"sha256": "", "bytes": 0, **dict.fromkeys(FACTS), "error": None, "detail": None}


def write_manifest(draft: Draft, dataset: ModuleType, store: Store, data: DataConfig, log: Log) -> None:
    """Write both tables, sorted by clip_id and caption_id; a file that cannot be used is a row with an error.

    Raises:
        UserError: the data set has no clips, or a clip_id or caption_id twice.
        WorkError: more than data.max_failed_share of the clips cannot be used, or none can.
    """
    root = dataset.root(store, data)
    clips, captions = dataset.rows(data, root)
    if not clips:
        raise UserError(f"data set {data.dataset} has no clips; look at data.root and data.annotations")
    _unique("clip_id", clips)
    _unique("caption_id", captions)
    paths = sorted({c["path"] for c in clips if not c.get("error")})
    spent: list[float] = []
    probed = dict(zip(paths, _probed(root, paths, log, spent.append)))
    draft.workers_cpu_s = sum(spent)
    usual = {"source": data.dataset, "weight": 1, **dict.fromkeys(("start_s", "end_s", "split", "family"))}
    rows = [
        {**usual, **probed.get(clip["path"], EMPTY), **clip, "media": _media(clip["path"])}
        for clip in sorted(clips, key=lambda c: c["clip_id"])
    ]
    _split(rows, data)
    moved = leakage.mark(rows)
    _family(rows)
    captions = [{**caption, "clip_id": moved.get(caption["clip_id"], caption["clip_id"])} for caption in captions]
    failed_share.check(rows, data.max_failed_share, "cannot be used")
    schemas.write(draft.path / "manifest.parquet", rows, schemas.MANIFEST)
    schemas.write(draft.path / "captions.parquet", sorted(captions, key=lambda c: c["caption_id"]), schemas.CAPTIONS)
    pairs = _pairs(captions)
    if pairs:  # most data sets have none: a caption belongs to its clip
        schemas.write(draft.path / "pairs.parquet", pairs, schemas.PAIRS)
    unlisted = dataset.unlisted(data, root) if hasattr(dataset, "unlisted") else []
    if unlisted:
        said.warning("%d videos of %s have no row in the annotation, such as %s", len(unlisted), root, unlisted[0])
    draft.count(*failed_share.counted(rows))
    draft.facts |= {"card": dataset.CARD.facts(), "num_captions": len(captions), "clips": _by_split(rows)}
    draft.facts |= leakage.counts(rows) | {"unlisted": len(unlisted)}


def _split(rows: list[Row], data: DataConfig) -> None:
    """Draw the split of rows without one, of files that can be used alone: broken ones take no share of it."""
    for row in rows:
        if not row["split"]:
            row["split"] = "" if row["error"] else _drawn(row["sha256"], data.shares)


def _family(rows: list[Row]) -> None:
    """Rows without a family are of their file's; equal files are one."""
    first: dict[str, str] = {}
    for row in rows:
        if row["family"] is None:
            row["family"] = row["path"] if row["error"] else first.setdefault(row["sha256"], row["path"])


def _drawn(sha256: str, shares: tuple[float, float, float]) -> str:
    """The split, drawn by content: copies of a video stay in one split and a new video moves no other."""
    number = int(hashlib.sha256(f"split {sha256}".encode()).hexdigest(), 16)
    drawn = (number % 10 + number // 10 % 100 / 100) / 10
    train, val, _ = shares
    return "train" if drawn < train else "val" if drawn < train + val else "test"


def _probed(root: Path, paths: list[str], log: Log, spent: Callable[[float], None]) -> list[Row]:
    """What `file_row` says of each file, in order; a file that hangs the prober is given up."""
    out: list[Row] = []
    failed = 0
    # What the recipe read is not read again; the rest has a deadline there.
    files = ((root / path, digests.known(root / path)) for path in paths)
    outcomes = pool.run(file_row, files, pool.num_workers(0), DEADLINE_S, spent=spent)
    nearby = Nearby(root)
    for path, found in zip(paths, tqdm(outcomes, "ingest", len(paths), unit="file", disable=None)):
        if isinstance(found, pool.Lost):
            found = {**EMPTY, "error": found.reason, "detail": found.detail}
        if found["error"] == "missing":
            found["detail"] = nearby.find(path) or found["detail"]
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
        row |= {"error": e.reason, "detail": e.detail}
    except OSError as e:
        row |= {"error": "unreadable", "detail": e.strerror or str(e)}
    return row


def _media(path: str) -> str:
    return "image" if images.is_image(path) else "video"


def _pairs(captions: list[Row]) -> list[Row]:
    """Rows of PAIRS: which captions are put to clips that they do not belong to, and which are true of them."""
    found = {(caption["caption_id"], clip): true for caption in captions for clip, true in caption.get("pairs", ())}
    return [{"caption_id": t, "clip_id": c, "relevant": found[t, c]} for t, c in sorted(found)]


def _unique(name: str, rows: list[Row]) -> None:
    seen: set[str] = set()
    for row in rows:
        if row[name] in seen:
            raise UserError(f"{name} {row[name]!r} stands twice in the data set; make it unique")
        seen.add(row[name])


def _by_split(rows: list[Row]) -> dict[str, int]:
    """Clips of each split that can be used."""
    return dict(sorted(collections.Counter(r["split"] for r in rows if r["error"] is None).items()))
