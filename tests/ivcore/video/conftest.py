"""A small data set that is decoded, for each module that asks."""

import pytest

from ivcore import steps
from ivcore.config import DataConfig, FramesConfig, SyntheticConfig
from ivcore.store.artifacts import Artifact, Store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, DataConfig, Artifact, Artifact]:
    store = Store(tmp_path_factory.mktemp("store"))
    data = DataConfig(synthetic=SyntheticConfig(train_clips=16, val_clips=4, test_clips=4))
    manifest = steps.run(steps.ingest(store, data), store)
    frames = steps.run(steps.decode(store, data, FramesConfig(shard_clips=10), manifest), store)
    return store, data, manifest, frames
