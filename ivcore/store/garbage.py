"""Which artifacts nobody needs any more: not reachable from what is kept, and not just made.

Kept are the roots, what they were made from, step by step, the shards their indexes name, and the videos their
manifests were made of. Kinds that this file does not know are never garbage. What is in the object store of IV_REMOTE
stays: other machines stand on it.
"""

import time
from collections.abc import Iterable

from ivcore.store.artifacts import Artifact, Store
from ivcore.store.durable import drop
from ivcore.store.soundness import RECORD

KINDS = ("manifest", "videos", "frames", "frame_shard", "features", "s2", "clip", "scores", "report")


def garbage(store: Store, roots: Iterable[str], older_than_s: float) -> list[Artifact]:
    """Artifacts that no root stands on and that are older than that; a run that is under way has younger ones.

    Args:
        roots: ids (KIND/KEY) to keep; those that are gone are passed over.
    """
    all_ = {artifact.id: artifact for artifact in store.all()}
    kept = reachable(all_, roots)
    now = time.time()
    return [
        artifact
        for id, artifact in all_.items()
        if id not in kept and artifact.kind in KINDS and now - (artifact.path / RECORD).stat().st_mtime > older_than_s
    ]


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


def size(artifact: Artifact) -> int:
    """Bytes of its files."""
    return sum(p.stat().st_size for p in artifact.path.rglob("*") if p.is_file())


def remove(artifact: Artifact) -> None:
    """Delete an artifact; nobody sees a part of one, whenever this is stopped."""
    drop(artifact.path)
