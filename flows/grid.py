"""The grid: both models scored on every data set, number of frames and dtype, from features made once each.

Training stays as the config says; only what is looked at differs. A grid cell's data set, frames and dtype are the name
of its arm, so intervals, paired differences between cells and the front are those of any report. Languages, lengths,
heads and every k come out of one scoring. Data sets beside the run's own:

    [[grid.data]]
    name = "msvd"
    dataset = "msvd"
    root = "videos/msvd"
    annotations = "annotations/msvd"
"""

import dataclasses
import itertools
from typing import Any

from prefect import flow

from flows.evaluate import make_report, make_seen
from flows.train import Trained, make_models
from ivcore.config import PartConfig, RunConfig
from tasks.data import ingest
from tasks.evaluation import cells, score
from tasks.failure_reason import HOOKS
from tasks.pipeline import Reference, Variant, pipeline


def make_cells(
    variant: Variant, trained: Trained, num_frames: int, dtype: str, part: PartConfig | None = None
) -> dict[str, Reference]:
    """Scores of both models on that many frames in that arithmetic, named ARM[_DATA]_fN_DTYPE.SEED.MODEL.

    `trained.manifest` is that of the part, or of the run's own data.
    """
    config = variant.config
    shown = config.frames.model_copy(update={"num_frames": num_frames})
    reckoned = config.train.model_copy(update={"dtype": dtype})
    arm, out = "_".join([variant.arm, *([part.name] if part else []), f"f{num_frames}", dtype]), {}
    seen = make_seen(variant, trained, config.data.of(part) if part else config.data, shown, reckoned)
    for (checkpoint, _), features in zip(trained.models, seen):
        name = f"{arm}.{variant.seed}.{checkpoint['kind']}"
        out[name] = variant.do(score, config.eval, reckoned, trained.manifest, features, checkpoint)
    return out


@flow(name="grid", persist_result=False, **HOOKS)
def grid(config: RunConfig, home: str | None = None) -> list[dict[str, Any]]:
    """Score both models over a grid of data sets, frames and dtypes, and publish one report over all cells.

    Args:
        config: The run, e.g. {"run": "demo", "grid": {"frames": [4, 8]}}; what is not set comes from that named run.
        home: Workspace folder. Empty: IV_HOME, else ./workspace.
    """
    with pipeline(config, home) as run:
        scores: dict[str, Reference] = {}
        for variant in run.variants():
            own = make_models(variant)
            frames = config.grid.frames or (variant.config.frames.num_frames,)
            for part in (None, *config.grid.data):
                manifest = variant.do(ingest, variant.config.data.of(part)) if part else own.manifest
                trained = dataclasses.replace(own, manifest=manifest)
                for num_frames, dtype in itertools.product(frames, config.grid.dtypes):
                    scores |= make_cells(variant, trained, num_frames, dtype, part)
        make_report(run, scores)
        run.over_all().do(cells, next(s for s in reversed(run.stages) if s["step"] == "report"))
        return run.stages
