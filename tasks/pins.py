"""What `iv gc` keeps: what the last report shows, what the registry holds, what was trained last, what is pinned."""

import json
from pathlib import Path

from ivcore.errors import UserError
from ivcore.store.artifacts import Store
from ivcore.store.durable import put
from ivcore.train import retraining
from tasks import registry

PINS = "pins.txt"


def roots(home: Path) -> dict[str, str]:
    """Ids (KIND/KEY) of what is kept -> by whom."""
    kinds = {artifact.key: artifact.id for artifact in Store(home).all()}
    out: dict[str, str] = {}
    report = home / "reports" / "latest" / "report.json"
    if report.is_file():
        stages = json.loads(report.read_text(encoding="utf-8"))["stages"]
        out |= {kinds[stage["key"]]: "report" for stage in stages if stage["key"] in kinds}
    out |= {kinds[key]: name for key, name in registry.checkpoints(home).items() if key in kinds}
    out |= dict.fromkeys(retraining.noted(home), "trained last")
    return out | {id: "pin" for id in pins(home)}


def pins(home: Path) -> list[str]:
    """Ids that somebody pinned."""
    path = home / PINS
    return path.read_text().split() if path.is_file() else []


def pin(home: Path, id: str) -> None:
    """Keep an artifact, and with it what it was made from, until its line is taken out of pins.txt."""
    kind, _, key = id.partition("/")
    if Store(home).find(kind, key) is None:
        raise UserError(f'--pin {id!r}: there is no such artifact; `iv sql "SELECT kind, key FROM records"` lists them')
    put(home / PINS, "\n".join(sorted({*pins(home), id})) + "\n")
