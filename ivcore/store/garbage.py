"""What nobody needs any more: artifacts not reachable from what is kept or in use, states of abandoned training.

Kept are the roots and what is young (made, or found by a run, not long ago), what these were made from, step by step,
the shards their indexes name, and the videos their manifests were made of. Kinds that this file does not know are never
garbage. What is in the object store of IV_REMOTE stays: other machines stand on it.
"""

import time
from collections.abc import Iterable
from pathlib import Path

from ivcore.store.artifacts import Artifact, Store
from ivcore.store.durable import drop
from ivcore.store.soundness import ASIDE, RECORD

KINDS = ("manifest", "videos", "frames", "frame_shard", "features", "s2", "clip", "scores", "report")


def garbage(store: Store, roots: Iterable[str], older_than_s: float) -> list[Artifact]:
    """Artifacts that neither a root nor anything younger stands on.

    Args:
        roots: ids (KIND/KEY) to keep; those that are gone are passed over.
    """
    all_ = {artifact.id: artifact for artifact in store.all()}
    now = time.time()
    young = [id for id, a in all_.items() if now - (a.path / RECORD).stat().st_mtime <= older_than_s]
    kept = reachable(all_, [*roots, *young])
    return [artifact for id, artifact in all_.items() if id not in kept and artifact.kind in KINDS]


def leftovers(home: Path, older_than_s: float) -> list[Path]:
    """Folders of that age: states of phases that nobody went on with, and what was set aside as damaged."""
    found = [*(home / "cache" / "training").glob("*"), *(home / ASIDE).glob("*/*")]
    return [folder for folder in sorted(found) if time.time() - _touched(folder) > older_than_s]


def _touched(folder: Path) -> float:
    """When something in it was written last, or it was moved."""
    return max([folder.stat().st_ctime, *(path.stat().st_mtime for path in folder.rglob("*"))])


def reachable(all_: dict[str, Artifact], roots: Iterable[str]) -> set[str]:
    """Ids of the roots and of everything they were made from."""
    videos = {str(a.record()["config"]): a.id for a in all_.values() if a.kind == "videos"}
    seen: set[str] = set()
    todo = [id for id in roots if id in all_]
    while todo:
        artifact = all_[todo.pop()]
        if artifact.id in seen:
            continue
        seen.add(artifact.id)
        found = artifact.stands_on()
        if artifact.kind == "manifest":
            found.append(videos.get(str(artifact.record()["config"]), ""))
        todo += [id for id in found if id in all_ and id not in seen]
    return seen


def size(folder: Path) -> int:
    """Bytes of its files."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def remove(folder: Path) -> None:
    """Delete the folder of an artifact or a leftover; nobody sees a part of one, whenever this is stopped."""
    drop(folder)
