"""Features read back from their Parquet files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ivcore.features import reader
from ivcore.features.reader import Features
from ivcore.store import schemas
from ivcore.store.artifacts import Store


def test_features_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tokens = np.arange(3 * 4 * 2, dtype=np.float16).reshape(3, 8)
    rows = [{"clip_id": f"c{n}", "tokens": tokens[n].tobytes(), "pooled": [float(n)] * 5} for n in range(3)]
    with store.write("features", "k", 1, {}, {}) as draft:
        schemas.write(draft.path / "features.parquet", rows, schemas.features(4, 2, 5, "float16"), row_group_size=2)
        draft.facts |= {"num_tokens": 4, "width": 2, "pooled": 5}
        draft.count(3)
    features = Features(draft.artifact)
    assert features.clip_ids == ["c0", "c1", "c2"]
    got = features.tokens(features.rows_of(["c2", "c0"]))
    assert got.dtype == torch.float32 and got.tolist() == tokens.reshape(3, 4, 2)[[2, 0]].tolist()
    assert features.pooled([1]).tolist() == [[1.0] * 5]


def test_features_are_read_on_demand_and_hold_what_they_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, num = Store(tmp_path), 40
    tokens = np.random.default_rng(0).standard_normal((num, 4 * 2)).astype(np.float16)
    rows = [{"clip_id": f"c{n}", "tokens": tokens[n].tobytes(), "pooled": [float(n)] * 5} for n in range(num)]
    with store.write("features", "k", 1, {}, {}) as draft:
        schemas.write(draft.path / "features.parquet", rows, schemas.features(4, 2, 5, "float16"), row_group_size=3)
        draft.facts |= {"num_tokens": 4, "width": 2, "pooled": 5}
        draft.count(num)
    monkeypatch.setattr(reader, "CACHE_BYTES", 5 * 3 * 4 * 2 * 2)  # five row groups of three clips
    features, read = Features(draft.artifact), []
    plain, read_group = tokens.astype(np.float32).reshape(num, 4, 2), features._files[0].read_row_group
    monkeypatch.setattr(features._files[0], "read_row_group", lambda *a, **k: read.append(a[0]) or read_group(*a, **k))
    for seed in range(8):
        wanted = np.random.default_rng(seed).integers(0, num, 16).tolist()
        before = len(read)
        assert np.array_equal(features.tokens(wanted).numpy(), plain[wanted])
        assert len(read) - before <= len({row // 3 for row in wanted})  # each row group once a batch at most
        assert sum(group.nbytes for group in features._groups.values()) <= reader.CACHE_BYTES
    for row, again in ((0, False), (3, False), (6, False), (9, False), (12, False), (0, True), (15, False), (0, True)):
        before = len(read)
        features.tokens([row])
        if row == 0 and again:  # used again and again, so it stays while others go
            assert len(read) == before
