"""MLflow's model registry: the checkpoint that ends a stage is a version of `iv-s2` or `iv-clip`, with its R@1.

A version holds the checkpoint's files as they are (safetensors and JSON, nothing pickled, no code), so it can be
downloaded and loaded by `AutoModel.from_pretrained` after `import ivcore.models`. Files too large to keep twice stay
in the workspace; the version's tags say where, and their sha256.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from ivcore.errors import WorkError
from ivcore.store import soundness
from ivcore.store.artifacts import Artifact, Store
from tasks import runtime, tracking

KINDS = ("s2", "clip")
BEST = ("kept", "best_step", "best_val_r1")  # kept: the last step of the stage or its best on the validation split
COPIED_BYTES = 1 << 30  # of one file; larger ones are not copied


def register(store: Store, artifact: Artifact, parent: str | None, tags: Mapping[str, str]) -> None:
    """Make the checkpoint a new version of its model, unless it is one already; a failure is a warning."""
    if parent is not None:  # without the run of the pipeline tracking does not answer
        tracking.guarded("register a model", lambda: _register(store, artifact, dict(tags)))


def note(store: Store, artifact: Artifact, parent: str | None, figures: Mapping[str, float]) -> None:
    """Write figures (R@1 in percent) on the version of this checkpoint, if it has one."""

    def work() -> None:
        mlflow = tracking.client(runtime.tracking_uri())
        version = _version(mlflow, artifact)
        for name, value in figures.items() if version else ():
            mlflow.set_model_version_tag(version.name, version.version, name, f"{value:.2f}")

    if parent is not None and figures:
        tracking.guarded("note scores on a model", work)


def _register(store: Store, artifact: Artifact, tags: dict[str, str]) -> None:
    uri = runtime.tracking_uri()
    mlflow, experiment = tracking.client(uri), tracking.experiment(store.home, uri)
    name, record = f"iv-{artifact.kind}", artifact.record()
    with FileLock(store.home / "mlflow" / "register.lock"):
        if _version(mlflow, artifact):
            return
        soundness.check_all(artifact.path)
        made_by = f"attributes.run_id = '{record['mlflow_run_id']}'"  # perhaps in another tracking store
        run_id = next((r.info.run_id for r in mlflow.search_runs([experiment], made_by)), None)
        tags |= {"iv.key": artifact.key, "iv.path": str(artifact.path)}
        tags |= {f"iv.sha256.{file}": sha256 for file, sha256 in record["files"].items()}
        tags |= {f"iv.{fact}": str(record["facts"][fact]) for fact in BEST if fact in record["facts"]}
        model = mlflow.create_logged_model(experiment, name, run_id, tags, model_type=artifact.kind)
        for file in sorted(artifact.path.iterdir()):
            if file.is_file() and file.stat().st_size <= COPIED_BYTES:
                mlflow.log_model_artifact(model.model_id, str(file))
        mlflow.finalize_logged_model(model.model_id, "READY")
        if run_id:
            tracking.note_model(run_id, model.model_id)
        if not mlflow.search_registered_models(f"name = '{name}'"):
            mlflow.create_registered_model(
                name, description=f"Checkpoints that end the {artifact.kind} stage of a run."
            )
        mlflow.create_model_version(name, model.artifact_location, run_id, tags, model_id=model.model_id)


def _version(mlflow: Any, artifact: Artifact) -> Any:
    """The version of this checkpoint, or None."""
    where = f"name = 'iv-{artifact.kind}' and tags.`iv.key` = '{artifact.key}'"
    return next(iter(mlflow.search_model_versions(where, max_results=1)), None)


def checkpoints(home: Path) -> dict[str, str]:
    """Key of every registered checkpoint -> the name of its version, e.g. iv-s2 3.

    Raises:
        WorkError: the registry does not answer.
    """
    try:
        mlflow = tracking.client(runtime.tracking_uri())
        tracking.experiment(home, runtime.tracking_uri())
        found = [v for kind in KINDS for v in mlflow.search_model_versions(f"name = 'iv-{kind}'", max_results=10_000)]
    except Exception as e:
        raise WorkError(f"MLflow's registry at {runtime.tracking_uri()} does not answer: {e}") from None
    return {v.tags["iv.key"]: f"{v.name} {v.version}" for v in found if "iv.key" in v.tags}


def version(kind: str, alias_or_number: str) -> tuple[str, str] | None:
    """Number and checkpoint key of a version of iv-KIND: by alias, by number, or the `newest`; None without one."""
    mlflow, name = tracking.client(runtime.tracking_uri()), f"iv-{kind}"
    found = mlflow.search_model_versions(f"name = '{name}'", max_results=10_000)
    if alias_or_number == "newest":
        wanted = max((int(v.version) for v in found), default=None)
    elif alias_or_number.isdigit():
        wanted = int(alias_or_number)
    else:  # a search does not tell aliases
        aliases = mlflow.get_registered_model(name).aliases if found else {}
        wanted = int(aliases[alias_or_number]) if alias_or_number in aliases else None
    return next(((str(v.version), v.tags["iv.key"]) for v in found if int(v.version) == wanted), None)


def move(kind: str, alias: str, number: str, why: str) -> None:
    """Let the alias point to that version, and write down why on it."""
    mlflow = tracking.client(runtime.tracking_uri())
    mlflow.set_registered_model_alias(f"iv-{kind}", alias, number)
    tell(kind, alias, number, why)


def tell(kind: str, what: str, number: str, why: str) -> None:
    """Write a sentence on a version, as the tag iv.WHAT."""
    tracking.client(runtime.tracking_uri()).set_model_version_tag(f"iv-{kind}", number, f"iv.{what}", why[:5000])
