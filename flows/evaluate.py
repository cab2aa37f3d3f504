"""Models -> scores of every variant -> one report."""

from typing import Any

from prefect import flow

from flows.train import Trained, make_models
from ivcore.config import DataConfig, FramesConfig, RunConfig, TrainConfig
from tasks.data import decode, featurize
from tasks.evaluation import catalog, publish, report, score
from tasks.failure_reason import HOOKS
from tasks.pipeline import Pipeline, Reference, Variant, pipeline


def make_seen(
    variant: Variant, trained: Trained, data: DataConfig, frames: FramesConfig, train: TrainConfig
) -> list[Reference]:
    """For each model the features of the scored split of `data`, whose manifest is `trained.manifest`."""
    decoded = variant.do(decode, data, frames, trained.manifest)
    encoders: dict[str, Reference] = {}  # whose trunk made the features a model stands on; s2's serves clip too
    out = []
    for checkpoint, features in trained.models:
        encoder = encoders.setdefault(features["key"], checkpoint)
        split = variant.config.eval.split
        out.append(variant.do(featurize, variant.config.features, train, decoded, encoder, split))
    return out


def make_scores(variant: Variant, trained: Trained) -> dict[str, Reference]:
    """Scores of both models, named ARM.SEED.MODEL; of s2 alone in an arm without clip."""
    config = variant.config
    return {
        f"{variant.arm}.{variant.seed}.{checkpoint['kind']}": variant.do(
            score, config.eval, config.train, trained.manifest, features, checkpoint
        )
        for checkpoint, features in trained.models
    }


def make_report(run: Pipeline, scores: dict[str, Reference]) -> str:
    """The verdict over every variant, published; the folder it is in."""
    all_ = run.over_all()
    folder = all_.do(publish, all_.do(report, run.config.eval, scores), run.stages, run.training)
    all_.do(catalog)
    return str(folder)


def judge(run: Pipeline) -> None:
    """Models and scores of every variant, found or made, and the report over them."""
    scores: dict[str, Reference] = {}
    for variant in run.variants():
        scores |= make_scores(variant, make_models(variant))
    make_report(run, scores)


@flow(name="evaluate", persist_result=False, **HOOKS)
def evaluate(config: RunConfig, home: str | None = None) -> list[dict[str, Any]]:
    """Score both models and publish the report; earlier steps are found or made.

    Args:
        config: The run, e.g. {"run": "demo"}; what is not set comes from that named run.
        home: Workspace folder. Empty: IV_HOME, else ./workspace.
    """
    with pipeline(config, home) as run:
        judge(run)
        return run.stages
