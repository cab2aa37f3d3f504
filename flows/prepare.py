"""Manifest -> frames."""

from typing import Any

from prefect import flow

from ivcore.config import RunConfig
from tasks.data import decode, ingest
from tasks.failure_reason import HOOKS
from tasks.pipeline import Reference, Variant, pipeline


def make_manifest(variant: Variant) -> Reference:
    """The data set's manifest."""
    return variant.do(ingest, variant.config.data)


def make_frames(variant: Variant, manifest: Reference, features_follow: bool = True) -> Reference:
    """The frames of the manifest's clips."""
    config = variant.config
    after = (config.model.size, config.features) if features_follow else ()
    return variant.do(decode, config.data, config.frames, manifest, *after)


@flow(name="prepare", persist_result=False, **HOOKS)
def prepare(config: RunConfig, home: str | None = None) -> list[dict[str, Any]]:
    """Read the data set and decode its frames.

    Args:
        config: The run, e.g. {"run": "demo"}; what is not set comes from that named run.
        home: Workspace folder. Empty: IV_HOME, else ./workspace.
    """
    with pipeline(config, home) as run:
        for variant in run.variants():
            make_frames(variant, make_manifest(variant), features_follow=False)
        return run.stages
