"""Nothing is trained on that is validated on or scored: clips of equal files whose times are equal or overlap.

Of equal clips one stays: that of test, else val, else train. A training clip that shows a part of a held-out one is
left out as a whole. A published protocol keeps all its clips: its equal ones are counted and stay.
"""

from typing import Any

from ivcore.store.schemas import DUPLICATE, OVERLAP

SPLITS = ("test", "val", "train")

Row = dict[str, Any]


def mark(rows: list[Row]) -> dict[str, str]:
    """Mark rows as `duplicate` or `overlap`; clip_id -> the clip_id that its captions go to.

    Captions move within a split alone: those of a training clip never become queries of the clip that is scored.
    """
    stays: dict[tuple[Any, ...], Row] = {}
    held: dict[str, list[Row]] = {}
    moved: dict[str, str] = {}
    usable = (row for row in rows if row["error"] is None)
    for row in sorted(usable, key=lambda row: (SPLITS.index(row["split"]), not _fixed(row), row["clip_id"])):
        start, end = _window(row)
        first = stays.setdefault((row["sha256"], start, end), row)
        alike = first is not row and first["split"] == row["split"]
        if alike and _fixed(row):
            row["twin"] = True
        elif first is not row:
            row |= {"error": DUPLICATE, "detail": f"the same as {first['clip_id']} of {first['split']}"}
            if alike and not _fixed(first):
                moved[row["clip_id"]] = first["clip_id"]
        else:
            for other in held.get(row["sha256"], ()):
                begins, ends = _window(other)
                if other["split"] != row["split"] and start < ends and begins < end:
                    row |= {"error": OVERLAP, "detail": f"shows a part of {other['clip_id']} of {other['split']}"}
                    break
        if row["error"] is None and row["split"] != SPLITS[-1]:
            held.setdefault(row["sha256"], []).append(row)
    return moved


def counts(rows: list[Row]) -> dict[str, int]:
    """How many clips were left out, and how many equal ones a published protocol has."""
    errors = [row["error"] for row in rows]
    found = {"duplicates": errors.count(DUPLICATE), "overlaps": errors.count(OVERLAP)}
    return found | {"duplicates_kept": sum(row.get("twin", False) for row in rows)}


def _fixed(row: Row) -> bool:
    return bool(row.get("published"))


def _window(row: Row) -> tuple[float, float]:
    """Seconds from and to; a clip without times is the whole file."""
    last = float("inf") if row["duration_s"] is None else row["duration_s"]
    end = last if row["end_s"] is None else min(row["end_s"], last)
    return row["start_s"] or 0.0, end
