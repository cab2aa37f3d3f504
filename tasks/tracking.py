"""The MLflow side of a run: one parent run a flow, one child run a step that was really made, links both ways by tags.

The only file that imports mlflow, and only inside functions: the address has to be set first. Run ids are handed on as
values, since MLflow's "active run" is per thread. A tracking failure is a warning, never the end of finished work.
"""

import contextlib
import functools
import json
import logging
import os
import socket
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from ivcore.config import flatten
from ivcore.errors import WorkError
from ivcore.steps import Step
from ivcore.store.artifacts import Artifact
from tasks import runtime
from tasks.sender import Sender

T = TypeVar("T")

EXPERIMENT = "ivflow"
log = logging.getLogger("iv.tracking")


@functools.cache
def client(uri: str) -> Any:
    """The MLflow client of an address."""
    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(uri)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=uri)


@functools.cache
def experiment(home: Path, uri: str) -> str:
    """Id of our experiment; the store is made once, under a lock: several processes on a fresh one break each other."""
    with FileLock(home / "mlflow" / "create.lock"):
        try:
            mlflow = client(uri)
            found = mlflow.get_experiment_by_name(EXPERIMENT)
            if found is not None:
                return str(found.experiment_id)
            # A plain database would put files into ./mlruns of wherever one stands.
            local = uri.startswith("sqlite")
            place = (home / "mlflow" / "artifacts").as_uri() if local else None
            return str(mlflow.create_experiment(EXPERIMENT, artifact_location=place))
        except OSError as e:
            raise WorkError(f"MLflow store {uri} cannot be opened: {e}") from None


def guarded(what: str, call: Callable[[], T]) -> T | None:
    """The call's result; None and a warning when tracking fails, so that it takes no finished step with it."""
    try:
        return call()
    except Exception as e:  # whatever the tracking server says, the artifact counts
        words = (str(e).splitlines() or [""])[0][:300]
        log.warning("MLflow could not %s: %s: %s; the run goes on without", what, type(e).__name__, words)
        return None


def open_parent(home: Path, name: str, config: Mapping[str, Any], context: Mapping[str, str]) -> str | None:
    """The pipeline run of this flow run: found again on a retry, else a new one."""

    def work() -> str:
        uri = runtime.tracking_uri()
        mlflow, number = client(uri), experiment(home, uri)
        _close_dead(mlflow, number)
        flow_run = context.get("prefect.flow_run.id", "")
        if flow_run:
            where = f"tags.`prefect.flow_run.id` = '{flow_run}' and tags.`iv.step` = 'pipeline'"
            found = mlflow.search_runs([number], where, max_results=1)
            if found:
                mlflow.update_run(found[0].info.run_id, status="RUNNING")
                for key, value in _process().items():
                    mlflow.set_tag(found[0].info.run_id, key, value)
                return str(found[0].info.run_id)
        tags = {"iv.step": "pipeline", "iv.run": str(config.get("run", "")), **_process(), **context}
        run = mlflow.create_run(number, run_name=name, tags=tags)
        _params(mlflow, run.info.run_id, flatten(dict(config)))
        return str(run.info.run_id)

    return guarded("open the pipeline run", work)


def close_parent(run_id: str | None, error: BaseException | None = None) -> None:
    """End the pipeline run."""
    if run_id is not None:
        guarded("close the pipeline run", lambda: _close(client(runtime.tracking_uri()), run_id, error))


def end_runs(home: Path, flow_run: str, status: str, reason: str) -> None:
    """End what a flow run that is no more has left RUNNING, with the reason as a tag."""

    def work() -> None:
        uri = runtime.tracking_uri()
        mlflow, number = client(uri), experiment(home, uri)
        where = f"tags.`prefect.flow_run.id` = '{flow_run}' and attributes.status = 'RUNNING'"
        for run in mlflow.search_runs([number], where, max_results=200):
            mlflow.set_tag(run.info.run_id, "iv.error", reason)
            mlflow.set_terminated(run.info.run_id, status)

    guarded("end the runs of a flow run", work)


def headlines(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """R@1 by arm, variant, language, length and direction; of several seeds and data sets the mean of each set.

    >>> row = {"arm": "main", "dataset": "a", "model": "s2", "head": "sim", "language": "en", "text_class": "short"}
    >>> headlines([{**row, "direction": "t2v", "r1": 40.0}, {**row, "direction": "t2v", "r1": 50.0}])
    {'r1/a/main/s2/sim/en/short/t2v': 45.0}
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        place = (row[n] for n in ("dataset", "arm", "model", "head", "language", "text_class", "direction"))
        found.setdefault("/".join(("r1", *place)), []).append(row["r1"])
    return {name: statistics.fmean(values) for name, values in found.items()}


def keep_report(run_id: str | None, folder: Path) -> None:
    """The published report, its tables and pictures among the artifacts of the pipeline run, R@1 among its figures."""

    def work() -> None:
        mlflow = client(runtime.tracking_uri())
        mlflow.log_artifacts(run_id, str(folder.resolve()), "report")
        found = json.loads((folder / "report.json").read_text())
        for name, value in headlines(found.get("rows", ())).items():
            mlflow.log_metric(run_id, name, value)

    if run_id is not None:
        guarded("keep the report", work)


def note_reused(run_id: str | None, step: Step, artifact: Artifact, place: str) -> None:
    """Say on the pipeline run that a step was found: whose run made it, and which artifact it is."""
    if run_id is None:
        return
    name = ".".join(x for x in (step.name, step.label, place) if x)
    old = artifact.record().get("mlflow_run_id") or "untracked"

    def work() -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(f"reused_from.{name}", old), RunTag(f"reused_key.{name}", artifact.id)]
        client(runtime.tracking_uri()).log_batch(run_id, tags=tags)

    guarded("note a reused step", work)


def note_cells(home: Path, parent: str, cells: list[dict[str, Any]]) -> int:
    """A finished child run a cell of a grid: what it is as params, what came out as figures; returns how many."""

    def work() -> int:
        from mlflow.entities import Metric

        uri = runtime.tracking_uri()
        mlflow, number = client(uri), experiment(home, uri)
        now = int(time.time() * 1000)
        for cell in cells:
            known = {name: value for name, value in cell.items() if value is not None}
            figures = {n: float(v) for n, v in known.items() if isinstance(v, float)}
            params = {n: v for n, v in known.items() if n not in figures}
            tags = {"iv.step": "cell", "mlflow.parentRunId": parent, **_process()}
            run = mlflow.create_run(number, run_name="cell " + " ".join(map(str, params.values()))[:200], tags=tags)
            _params(mlflow, run.info.run_id, params)
            mlflow.log_batch(run.info.run_id, [Metric(n, v, now, 0) for n, v in figures.items()])
            mlflow.set_terminated(run.info.run_id)
        return len(cells)

    return guarded("note the cells of a grid", work) or 0


class StageRun:
    """The child run of one step; what is logged is sent by a thread of its own."""

    def __init__(self, run_id: str | None) -> None:
        self.run_id = run_id
        self._sender = Sender(self._send) if run_id else None

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Note figures of a step (or count); what `ivcore` calls as its `log`."""
        if self._sender is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._sender.put([Metric(name, float(value), now, int(step)) for name, value in figures.items()])

    def close(self) -> None:
        """Return when everything is sent, or cannot be."""
        if self._sender is not None:
            self._sender.close()

    def _send(self, figures: list[Any]) -> None:
        client(runtime.tracking_uri()).log_batch(self.run_id, figures)


@contextlib.contextmanager
def stage_run(
    home: Path, step: Step, parent: str | None, arm: str, seed: int, context: Mapping[str, str]
) -> Iterator[StageRun]:
    """A child run around the making of a step; FAILED with the reason when it fails."""
    tags = {
        "iv.step": step.name,
        "iv.label": step.label,
        "iv.kind": step.kind,
        "iv.key": step.key,
        "iv.arm": arm,
        "iv.seed": str(seed),
        "iv.output": f"{step.kind}/{step.key}",
        **{f"iv.inputs.{name}": artifact.id for name, artifact in step.inputs.items()},
        "mlflow.source.git.commit": git_commit(),
        **_process(),
        **context,
        "mlflow.parentRunId": parent or "",
    }

    def work() -> str:
        uri = runtime.tracking_uri()
        mlflow, number = client(uri), experiment(home, uri)
        name = ".".join(x for x in (step.name, step.label, arm, str(seed)) if x)
        run = mlflow.create_run(number, run_name=name, tags={k: v for k, v in tags.items() if v})
        _params(mlflow, run.info.run_id, flatten(dict(step.config)))
        _inputs(mlflow, run.info.run_id, step)
        return str(run.info.run_id)

    # Without a run of the pipeline tracking does not answer: no use in waiting for it again at every step.
    stage = StageRun(guarded(f"open the run of {step.name}", work) if parent else None)
    error: BaseException | None = None
    try:
        yield stage
    except BaseException as e:
        error = e
        raise
    finally:
        stage.close()
        if stage.run_id is not None:
            run_id = stage.run_id
            guarded("close a run", lambda: _close(client(runtime.tracking_uri()), run_id, error))


def note_model(run_id: str, model_id: str) -> None:
    """Show a model on the page of the run that made it."""
    from mlflow.entities import LoggedModelOutput

    client(runtime.tracking_uri()).log_outputs(run_id, [LoggedModelOutput(model_id, 0)])


def figures_of(artifact: Artifact) -> dict[str, float]:
    """What the record says in numbers: rows, times, and the numeric facts and measurements."""
    record = artifact.record()
    names = ("rows_in", "rows_ok", "rows_failed", "wall_s", "cpu_s", "peak_rss_mb")
    out = {name: float(record[name]) for name in names}
    for group in ("facts", "measured"):
        for name, value in flatten(record[group]).items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                out[f"{group}/{name}"] = float(value)
    return out


def link(home: Path, run_id: str | None) -> str:
    """Address of a run's page; for the workspace's own database, as `mlflow server` on its usual port shows it."""
    if run_id is None:
        return ""
    uri = runtime.tracking_uri()
    base = uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
    return f"{base}/#/experiments/{experiment(home, uri)}/runs/{run_id}"


@functools.cache
def git_commit() -> str:
    """Commit of the code, or nothing outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _process() -> dict[str, str]:
    pid = os.getpid()
    return {"iv.host": socket.gethostname(), "iv.pid": str(pid), "iv.began": str(runtime.began(pid))}


def _close(mlflow: Any, run_id: str, error: BaseException | None) -> None:
    if error is not None:
        mlflow.set_tag(run_id, "iv.error", f"{type(error).__name__}: {error}"[:1000])
    stopped = error is not None and not isinstance(error, Exception)  # Ctrl-C or a cancelled flow
    mlflow.set_terminated(run_id, "KILLED" if stopped else "FAILED" if error else "FINISHED")


def _close_dead(mlflow: Any, number: str) -> None:
    """Runs of killed processes would stay RUNNING for ever."""
    where = f"attributes.status = 'RUNNING' and tags.`iv.host` = '{socket.gethostname()}'"
    for run in mlflow.search_runs([number], where, max_results=200):
        pid, began = run.data.tags.get("iv.pid", ""), run.data.tags.get("iv.began")
        now = str(runtime.began(int(pid))) if pid.isdigit() else ""  # a number is given to another process, in time
        if Path("/proc/self").exists() and (now == "None" or began not in (None, now)):
            mlflow.set_tag(run.info.run_id, "iv.error", f"process {pid} was killed")
            mlflow.set_terminated(run.info.run_id, "KILLED")


def _params(mlflow: Any, run_id: str, values: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    params = [Param(name, str(value)[:6000]) for name, value in values.items()]
    for start in range(0, len(params), 100):
        mlflow.log_batch(run_id, params=params[start : start + 100])


def _inputs(mlflow: Any, run_id: str, step: Step) -> None:
    """The artifacts read, as data sets whose digest is their key: nothing is loaded."""
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]  # made as it is imported
    from mlflow.entities import DatasetInput, InputTag

    inputs = []
    for name, artifact in step.inputs.items():
        source = LocalArtifactDatasetSource(str(artifact.path))
        digest = artifact.key[:32]  # at most 36 characters
        data = MetaDataset(source=source, name=artifact.kind, digest=digest)  # type: ignore[abstract]
        inputs.append(DatasetInput(data._to_mlflow_entity(), [InputTag("mlflow.data.context", name)]))
    if inputs:
        mlflow.log_inputs(run_id, inputs)
