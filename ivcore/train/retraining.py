"""Whether models are trained again when the data has changed, by `train.policy`; and what was trained last.

What was trained last with a config is noted in the workspace, trained/KEY.json: the manifest that was learned from and
the checkpoints that came of it, each with the one whose trunk it stands on. The key is that of the config, so other
data folders, arms and seeds have notes of their own.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, StringConstraints, ValidationError

from ivcore.config import RunConfig
from ivcore.errors import UserError
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store, key
from ivcore.store.durable import put
from ivcore.store.versions import VERSIONS

Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]+/[a-z0-9]+$")]
Model = tuple[Id, Id]  # of a checkpoint, and of the one whose trunk makes the features that it reads


class Note(BaseModel):
    """What was trained last with a config."""

    manifest: Id
    models: tuple[Model, ...]


@dataclass(frozen=True)
class Choice:
    """What to do: `models` are those that stay as they are; none: train."""

    models: tuple[Model, ...]
    trained_on: Artifact
    new_clips: int
    why: str


def choose(store: Store, config: RunConfig, manifest: Artifact) -> Choice:
    """Which models are for this manifest: those trained last, or new ones (found, where the data is the same)."""
    policy = config.train.policy
    last = _last(store, config)
    if last is None or last[0].id == manifest.id:
        return Choice((), manifest, 0, "")
    before, models = last
    old, now = _clips(before), _clips(manifest)
    new = len(now["train"] - old["train"])
    share = new / max(len(old["train"]), 1)
    said = f"{new} new training clips, {share:.1%} of the {len(old['train'])} that were learned from"
    if policy == "always" or (policy == "when_data_grows_by" and share >= config.train.grows_by):
        return Choice((), manifest, new, f"trained again: {said} (train.policy = {policy})")
    limit = f", train.grows_by = {config.train.grows_by:.1%}" if policy == "when_data_grows_by" else ""
    why = f"training was held back (train.policy = {policy}{limit}): {said}"
    seen = len(now[config.eval.split] & old["train"]) if config.eval.split != "train" else 0
    if seen:  # moved by hand from one split to another
        why += f"; {seen} of the clips that are scored now were learned from, so the figures flatter"
    return Choice(models, before, new, why)


def phase_name(checkpoint: Artifact) -> str:
    """The name of the phase that a checkpoint ends."""
    return str(checkpoint.record()["config"].get("phase", {}).get("name", "imported"))


def trunk_of(store: Store, checkpoint: Artifact, features: Artifact) -> Artifact:
    """The checkpoint, or the one before it, whose trunk made the features: clip reads those of the s2 it began from."""
    wanted, found = features.record()["config"].get("vision_digest"), checkpoint
    while True:
        record = found.record()
        if record["facts"]["vision_digest"] == wanted:
            return found
        if "init" not in record["inputs"]:
            return checkpoint
        found = store.get(record["inputs"]["init"])


def remember(store: Store, config: RunConfig, manifest: Artifact, models: Sequence[Model]) -> None:
    """Note that these models were trained on this manifest."""
    put(_path(store, config), Note(manifest=manifest.id, models=tuple(models)).model_dump_json())


def noted(home: Path) -> Iterator[str]:
    """Ids of the checkpoints of every note.

    Raises:
        UserError: naming a note that cannot be read, since what it keeps is not known then.
    """
    for path in sorted((home / "trained").glob("*.json")):
        yield from (id for model in _read(path).models for id in model)


def _last(store: Store, config: RunConfig) -> tuple[Artifact, tuple[Model, ...]] | None:
    """Manifest and models of the note; None where there is none, or where something of it is gone."""
    try:
        note = _read(_path(store, config))
    except FileNotFoundError:
        return None
    found = [store.find(*id.split("/")) for id in (note.manifest, *(id for model in note.models for id in model))]
    return None if None in found or not note.models else (store.get(note.manifest), note.models)


def _read(path: Path) -> Note:
    try:
        return Note.model_validate_json(path.read_bytes())
    except ValidationError:
        raise UserError(
            f"{path} is no note of what was trained last; delete it: the next run finds or trains, and notes anew"
        ) from None


def _path(store: Store, config: RunConfig) -> Path:
    """The note of a config: of what is trained in it, and where its data come from."""
    what: dict[str, Any] = {name: getattr(config, name).model_dump(mode="json") for name in ("data", "model")}
    what |= {"frames": config.frames.recipe(), "train": config.train.recipe(), "features": config.features.recipe()}
    what["versions"] = {kind: VERSIONS[kind] for kind in ("s2", "clip")}
    return store.home / "trained" / f"{key('trained', 1, what, {})}.json"


def _clips(manifest: Artifact) -> dict[str, set[tuple[Any, ...]]]:
    """What the usable clips of each split are: bytes and times."""
    out: dict[str, set[tuple[Any, ...]]] = {"train": set(), "val": set(), "test": set()}
    columns = ["sha256", "start_s", "end_s", "split", "error"]
    for row in schemas.read(manifest.path / "manifest.parquet", schemas.MANIFEST, columns).to_pylist():
        if row["error"] is None:
            out[row["split"]].add((row["sha256"], row["start_s"], row["end_s"]))
    return out
