"""How many clips may fail: what data.max_failed_share allows, held when the data set is read and when it is decoded."""

import collections
from typing import Any

from ivcore.errors import WorkError
from ivcore.store.schemas import NO_FAULT

Row = dict[str, Any]


def failed(rows: list[Row]) -> list[Row]:
    """Rows with an error that is a fault."""
    return [row for row in rows if row["error"] is not None and row["error"] not in NO_FAULT]


def counted(rows: list[Row]) -> tuple[int, int, int]:
    """Rows that can be used, that failed, and that are left out without a fault."""
    ok, bad = sum(row["error"] is None for row in rows), len(failed(rows))
    return ok, bad, len(rows) - ok - bad


def check(rows: list[Row], allowed: float, how: str) -> None:
    """WorkError that counts the reasons, where more than the share `allowed` of the clips failed, or none is left."""
    bad = failed(rows)
    if len(bad) <= allowed * len(rows) and any(row["error"] is None for row in rows):
        return
    reasons = sorted(collections.Counter(row["error"] for row in bad).items())
    told = ", ".join(f"{num} {reason}" for reason, num in reasons)
    first = f", the first is {bad[0]['clip_id']}: {bad[0]['detail']}" if bad else ""
    raise WorkError(
        f"{len(bad)} of {len(rows)} clips {how} ({told}){first}; data.max_failed_share allows {allowed:g}; mend the "
        "videos or leave them out, and raise data.max_failed_share if the rest is enough"
    )
