"""Phases that call for other machines, on the workspace they share: HOME/run/calls/PHASE.json while one trains."""

import contextlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

from ivcore.store.durable import put

FOLDER = Path("run") / "calls"


@contextlib.contextmanager
def call(home: Path, job: Path) -> Iterator[None]:
    """Inside, other machines see that this job wants them."""
    place = home / FOLDER / f"{job.parent.name}.json"
    put(place, json.dumps({"id": uuid.uuid4().hex, "job": str(job)}))
    try:
        yield
    finally:
        place.unlink(missing_ok=True)


def calls(home: Path) -> dict[str, Path]:
    """The jobs that call, by the id of their call, oldest first."""
    found = {}
    for _, place in sorted((p.stat().st_mtime, p) for p in (home / FOLDER).glob("*.json")):
        with contextlib.suppress(FileNotFoundError):  # it has just ended
            said = json.loads(place.read_text())
            found[said["id"]] = Path(said["job"])
    return found
