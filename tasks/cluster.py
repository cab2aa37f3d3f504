"""Frame shards made by the machines of a Dask cluster, through Prefect's task runner: `frames.dask`, the extra `dask`.

A shard hangs on rows of the manifest, the config and the store alone. So the cluster fills the store, and then the step
runs as ever: it finds every shard and writes the index. Each task run decodes with killable processes of its own.
"""

import dataclasses
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ivcore.config import DataConfig, FramesConfig
from ivcore.errors import UserError, WorkError
from ivcore.names import module
from ivcore.steps import Step
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Draft, Store
from ivcore.store.log import Log
from ivcore.video import shards as frame_shards
from tasks.step import step_task

MOST_RUNS = 200  # task runs of a decode, whatever it has to decode
CONNECT_S = 10
EXTRA = "pip install 'ivflow[dask]'"
DAEMON = "start it with --no-nanny, or with DASK_DISTRIBUTED__WORKER__DAEMON=False"
log = logging.getLogger("iv")

Parts = Sequence[Sequence[int]]


@step_task("shards")
def shards(home: str, data: DataConfig, frames: FramesConfig, manifest: str, parts: Parts) -> list[str]:
    """Ids of the shards of these rows of the manifest; on a machine of the cluster."""
    if multiprocessing.current_process().daemon:
        raise WorkError(f"this Dask worker may start no processes, and decoders must be killable; {DAEMON}")
    store = Store(Path(home))
    root = module("ivcore.datasets.sets", data.dataset).root(store, data)
    return frame_shards.make_shards(store, root, frames, store.get(manifest), parts)


def with_cluster(
    step: Step,
    store: Store,
    data: DataConfig,
    frames: FramesConfig,
    manifest: Artifact,
    later_gb: float = 0.0,
    later_must: bool = False,
) -> Step:
    """The decode step; where `frames.dask` names a scheduler, its missing shards are made there first."""
    if frames.dask is None:
        return step

    def make(draft: Draft, tell: Log) -> None:
        clips = list(schemas.rows(manifest.path / "manifest.parquet", schemas.MANIFEST))
        known, parts = frame_shards.planned(store, frames, clips, later_gb, later_must)
        if parts:
            _map(store, data, frames, manifest, parts, len(known), tell)
        step.make(draft, tell)

    return dataclasses.replace(step, make=make)


def chunks(parts: Parts) -> Iterator[Parts]:
    """The shards of each task run: as few as MOST_RUNS allows."""
    size = -(-len(parts) // MOST_RUNS)
    return (parts[start : start + size] for start in range(0, len(parts), size))


def _map(
    store: Store, data: DataConfig, frames: FramesConfig, manifest: Artifact, parts: Parts, done: int, tell: Log
) -> None:
    """Make the shards on the cluster.

    Raises:
        UserError: the extra is not installed, or there is no Prefect server that machines of a cluster could reach.
        WorkError: no scheduler answers, or what was made there is not to be found here.
    """
    from prefect.settings import PREFECT_API_URL

    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError:
        raise UserError(f"frames.dask = {frames.dask} needs the extra dask: {EXTRA}") from None
    if not PREFECT_API_URL.value():
        raise UserError(f"frames.dask = {frames.dask} needs a Prefect server that its workers reach: iv up")
    with DaskTaskRunner(address=frames.dask, client_kwargs={"timeout": CONNECT_S}) as runner:
        try:
            log.info("%d shards on %s", len(parts), runner.client.scheduler.address)
        except OSError:
            raise WorkError(f"frames.dask = {frames.dask}: no scheduler answers there within {CONNECT_S} s") from None
        given: dict[str, Any] = {"home": str(store.home), "data": data, "frames": frames, "manifest": manifest.id}
        runs = [(part, runner.submit(shards, {**given, "parts": part})) for part in chunks(parts)]
        for part, run in runs:
            for id in run.result():
                if store.find(*id.split("/")) is None:
                    raise WorkError(
                        f"{id} was made on the cluster and is not in {store.home}; its machines need the same "
                        "workspace on a shared disk, or IV_REMOTE set to the same object store"
                    )
            done += sum(map(len, part))
            tell({"clips": done}, done)
