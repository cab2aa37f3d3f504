"""A flow's view of its run: workspace, tracked pipeline run, and the stages so far."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prefect import runtime as prefect_runtime

from ivcore.config import RunConfig, variants
from ivcore.store.soundness import Damaged
from tasks import reaper, run_page, runtime, tracking
from tasks.step import Reference, Where, prefect_context

T = TypeVar("T")
TRIES = 20  # of a task that finds damage, each time in another artifact
log = logging.getLogger("iv")


@dataclass
class Variant:
    """One arm and seed of a run, with its own config."""

    pipeline: "Pipeline"
    arm: str
    seed: int
    config: RunConfig

    @property
    def where(self) -> Where:
        """Where its tasks work and for whom."""
        return Where(str(self.pipeline.home), self.pipeline.parent, self.arm, self.seed)

    def do(self, task: Any, *arguments: Any) -> Reference:
        """Run a step's task here and now; its reference comes back and its row joins the stages."""

        def work() -> Reference:
            # In this thread: training wants signals and threads as they are. A state, since a found step returns one.
            result: Reference = task(self.where, *arguments, return_state=True).result()
            return result

        result = self.mended(work)
        if isinstance(result, dict) and "stage" in result:
            self.pipeline.stages.append(result["stage"])
            self.pipeline.made.append((result, lambda: self.mended(work)))
        return result

    def mended(self, work: Callable[[], T]) -> T:
        """What the work returns; where it finds damage, the tasks that made what is damaged do so again before."""
        left = TRIES
        while True:
            try:
                return work()
            except Exception as e:
                left -= 1
                gone = [again for made, again in self.pipeline.made if not self.where.has(made)]
                if not left or not (gone or isinstance(e, Damaged)):
                    raise
                log.warning("%s", e)
                for again in gone:
                    again()


@dataclass
class Pipeline:
    """What the steps of one flow run share."""

    home: Path
    config: RunConfig
    parent: str | None
    stages: list[dict[str, Any]] = field(default_factory=list)
    made: list[tuple[Reference, Callable[[], Reference]]] = field(default_factory=list)  # and how, once more
    training: list[dict[str, Any]] = field(default_factory=list)  # of each variant: learned from which data, and why

    def variants(self) -> list[Variant]:
        """Every arm and seed."""
        return [Variant(self, arm, seed, config) for arm, seed, config in variants(self.config)]

    def over_all(self) -> Variant:
        """For steps that read every variant: the report."""
        return Variant(self, "all", self.config.seeds[0], self.config)


@contextlib.contextmanager
def pipeline(config: RunConfig, home: str | None) -> Iterator[Pipeline]:
    """Open the workspace and the tracked run of this flow run; the run is closed as it ended."""
    place = runtime.prepare(home)
    if prefect_runtime.flow_run.id:
        reaper.enrol(prefect_runtime.flow_run.id, prefect_runtime.flow_run.run_count)
        reaper.reap()
    name = prefect_runtime.flow_run.name or config.run or "run"
    values = config.model_dump(mode="json")
    parent = tracking.open_parent(
        place, f"{config.run or 'run'} {config.data.dataset} {name}", values, prefect_context()
    )
    error: BaseException | None = None
    run = Pipeline(place, config, parent)
    try:
        yield run
        log.info("%s", run_page.outcome(run.stages))
        run_page.stages(place, run.stages)
    except BaseException as e:
        error = e
        raise
    finally:
        tracking.close_parent(parent, error)


__all__ = ["Pipeline", "Reference", "Variant", "pipeline"]
