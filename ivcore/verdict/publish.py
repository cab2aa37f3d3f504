"""reports/latest: the verdict of a found or made report as a folder to look at.

Apart from the making of the verdict, since a night without news does no more than this: torch is not needed for it.
"""

import contextlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ivcore.errors import WorkError
from ivcore.store import durable, soundness
from ivcore.store.artifacts import Artifact, Store

VERDICT = "verdict.json"
KEPT_S = 3600.0  # of a report after the next one: somebody may be reading it


def publish(
    store: Store, report: Artifact, stages: list[dict[str, Any]], training: Sequence[dict[str, Any]] = ()
) -> Path:
    """Write reports/latest anew (report.json, report.html, pictures); a reader sees the old one or the new one, whole.

    `latest` is a link to a folder beside it: a link can be replaced in one move, a folder that is not empty cannot.
    """
    from ivcore.verdict.page import page

    soundness.check(report.path / VERDICT)
    try:
        found = json.loads((report.path / VERDICT).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError) as e:
        raise WorkError(f"{report.path / VERDICT} cannot be read ({e}); delete {report.path} and run again") from None
    found["stages"], found["training"] = stages, list(training)
    lines = [
        f"{t['arm']}.{t['seed']}: {t['why']}. Trained on manifest {t['trained_on']}." for t in training if t["why"]
    ]
    found["summary"] += [{"title": "The data has changed", "lines": lines}] if lines else []
    drawn = _drawn(store, report, found)
    files = {"report.json": as_json(found), "report.html": page(found, drawn)}
    files |= {f"{name}.svg": svg for name, svg in drawn.items()}
    reports = store.home / "reports"
    reports.mkdir(parents=True, exist_ok=True)
    latest = reports / "latest"
    before = latest.resolve() if latest.is_symlink() else None
    folder = reports / f".{report.key}.{durable.mark()}"
    with durable.aside(folder) as made:
        for name, text in files.items():
            (made / name).write_text(text, encoding="utf-8")
        durable.put_folder(made, folder)
    if latest.is_dir() and not latest.is_symlink():  # as copied from elsewhere
        durable.drop(latest)
    durable.put_link(latest, folder.name)
    _sweep(reports, before)
    return latest


def _drawn(store: Store, report: Artifact, found: dict[str, Any]) -> dict[str, str]:
    """SVG by name; those of the last publishing where that was of this report, since drawing takes seconds."""
    before = (store.home / "reports" / "latest").resolve()
    if before.name.startswith(f".{report.key}."):
        with contextlib.suppress(OSError):  # another publisher may take it away just now
            if kept := {path.stem: path.read_text(encoding="utf-8") for path in before.glob("*.svg")}:
                return kept
    from ivcore.verdict.plots import pictures

    return pictures(found)


def as_json(value: Any) -> str:
    """What report.json and verdict.json are written as."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def _sweep(reports: Path, before: Path | None) -> None:
    """Remove the reports that were replaced, and what killed publishers left, once nobody can be reading them."""
    if before is not None and before.parent == reports.resolve():
        with contextlib.suppress(OSError):  # its time is that of its being replaced
            os.utime(before)
    keep = (reports / "latest").resolve().name
    for left in reports.glob(".*"):
        with contextlib.suppress(OSError):
            if left.name != keep and time.time() - left.lstat().st_mtime > KEPT_S:
                durable.drop(left)
