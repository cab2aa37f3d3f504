"""What a run shows on its Prefect page: what was made and found, the verdict, the videos that failed.

Outside a flow run nothing is written; not being able to write is only a warning, since the work is done.
"""

import functools
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import runtime as prefect_runtime
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from ivcore.store.artifacts import Artifact
from tasks import tracking

MAX_FAILED = 200  # rows of the table of failed videos; all of them are in `iv sql`
log = logging.getLogger("iv")


def _noted(write: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(write)
    def careful(*args: Any) -> None:
        if not prefect_runtime.flow_run.id:
            return
        try:
            write(*args)
        except Exception as e:
            log.warning("Prefect took no page of %s: %s", write.__name__, (str(e).splitlines() or [""])[0][:300])

    return careful


def outcome(stages: list[dict[str, Any]]) -> str:
    """In a line: how much was made and how much was there."""
    made = sum(not stage["cached"] for stage in stages)
    if not made:
        return f"Nothing new: all {len(stages)} steps were found, nothing was made."
    return f"{made} of {len(stages)} steps were made, {len(stages) - made} were found."


@_noted
def stages(home: Path, rows: list[dict[str, Any]]) -> None:
    """A line and a table of the steps, each with its MLflow run."""
    lines = [f"### {outcome(rows)}", "", "| step | arm.seed | | rows | failed | seconds | MLflow |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: | --- |")
    for s in rows:
        page = tracking.link(home, s["mlflow_run_id"])
        cells = [f"{s['step']} {s['label']}".strip(), f"{s['arm']}.{s['seed']}", "found" if s["cached"] else "made"]
        cells += [s["rows_ok"], s["rows_failed"], s["wall_s"], f"[run]({page})" if page else ""]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    create_markdown_artifact("\n".join(lines), key="steps")


@_noted
def verdict(home: Path, folder: Path, parent: str | None) -> None:
    """The verdict in words and recall by variant, with the ways to the whole report."""
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    lines: list[str] = []
    for section in found.get("summary", []):
        lines += [f"### {section['title']}", "", *(f"- {line}" for line in section["lines"]), ""]
    lines += [
        "| arm.seed | model | head | queries | direction | R@1 | 95 % |",
        "| --- | --- | --- | --- | --- | ---: | --- |",
    ]
    for row in found["rows"]:
        ci = row["r1_ci95"]
        cells = [f"{row['arm']}.{row['seed']}", row["model"], row["head"], f"{row['language']} {row['text_class']}"]
        cells += [row["direction"], row["r1"], f"{ci[0]} to {ci[1]}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    page = tracking.link(home, parent)
    lines += ["", f"The whole report: `{folder / 'report.html'}`"]
    lines += [f"In MLflow, with report.html among its artifacts: [{page}]({page})"] if page else []
    create_markdown_artifact("\n".join(lines), key="verdict")


@_noted
def failed(manifest: Artifact, frames: Artifact) -> None:
    """A table of the videos that gave no frames, with the reason."""
    from ivcore.store import schemas
    from ivcore.video import failed_share

    paths = {r["clip_id"]: r["path"] for r in schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST)}
    rows = failed_share.failed(list(schemas.rows(frames.path / "index.parquet", schemas.FRAMES)))
    table = [
        {"video": paths.get(r["clip_id"], ""), "clip": r["clip_id"], "error": r["error"], "detail": r["detail"] or ""}
        for r in rows[:MAX_FAILED]
    ]
    if table:
        more = f", the first {MAX_FAILED} of them" if len(rows) > MAX_FAILED else ""
        create_table_artifact(table, key="failed-videos", description=f"{len(rows)} clips without frames{more}")
