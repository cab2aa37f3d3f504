"""Token and pooled features of a checkpoint's vision tower, one Parquet row a clip, and one a further view of it.

A clip whose frames went through the same tower before is copied: of a data set that grew only new clips are encoded.
"""

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from ivcore.checkpoints import checkpoint
from ivcore.config import FeaturesConfig, TrainConfig
from ivcore.datasets.captions import Captions
from ivcore.features.reuse import EarlierFeatures
from ivcore.models import device as devices
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Draft, Store
from ivcore.store.log import Log
from ivcore.video.frames import Frames, normalise
from ivcore.video.views import Views

ROW_GROUP_BYTES = 1 << 20  # what a reader of one clip has to read at least; a clip of S14 is larger and stands alone


@torch.no_grad()
@devices.memory("a smaller features.batch_size")
def write_features(
    draft: Draft,
    store: Store,
    features: FeaturesConfig,
    train: TrainConfig,
    frames: Artifact,
    encoder: Artifact,
    log: Log,
    recipe: Mapping[str, Any],
    split: str | None = None,
) -> None:
    """Encode every decoded clip (of a split) and write features.parquet; memory holds one batch.

    Training clips are encoded in their other views, too, where there are any: views.parquet. What features of the
    same `recipe` hold already is copied from there.
    """
    torch.set_num_threads(train.threads)
    device = devices.choose(train.device)
    model: Any = checkpoint.load(encoder.path)[0]
    model.to(device)
    source = Frames(store, frames, Views.of(features, train.seed))
    model.vision_encoder.take_frames(source.shape[0])
    rows = [row for row, num in enumerate(source.num_frames) if num == source.shape[0]]  # of videos, not of images
    captions = Captions(store.get(frames.record()["inputs"]["manifest"])) if split or source.num_views > 1 else None
    if split and captions:
        wanted = set(captions.clips(split))
        rows = [row for row in rows if source.clip_ids[row] in wanted]
    trained = set(captions.clips("train")) if captions else set()
    earlier = EarlierFeatures(store, recipe, frames)
    made = 0

    def encode(part: Sequence[int], view: int) -> tuple[np.ndarray, np.ndarray]:
        """([B, 1+N, C] in the type that is stored, [B, P])."""
        video = normalise(source.batch(part, [view] * len(part)).to(device))
        with torch.autocast(device.type, getattr(torch, train.dtype), enabled=train.dtype != "float32"):
            tokens = model.encode_tokens(video)  # [B, 1+N, C]
            pooled = model.vision_encoder.pool(tokens)  # [B, P]
        return tokens.float().cpu().numpy().astype(features.dtype), pooled.float().cpu().numpy()

    def take(part: Sequence[int], view: int) -> tuple[np.ndarray, np.ndarray]:
        """The same, from where it is kept or from the trunk."""
        nonlocal made
        names = [source.clip_ids[row] for row in part]
        old = [n for n, name in enumerate(names) if earlier.has(name, view)]
        new = sorted(set(range(len(part))).difference(old))
        made += len(new) if view == 0 else 0
        got = [earlier.get([names[n] for n in old], view, features.dtype)] if old else []
        got += [encode([part[n] for n in new], view)] if new else []
        order = np.argsort(old + new)
        tokens, pooled = (np.concatenate(arrays)[order] for arrays in zip(*got))
        return tokens, pooled

    with contextlib.ExitStack() as files:
        plain = others = None
        for start in tqdm(range(0, len(rows), features.batch_size), desc="featurize", unit="batch", disable=None):
            part = rows[start : start + features.batch_size]
            tokens, pooled = take(part, 0)
            if plain is None:
                _, num_tokens, width = tokens.shape
                dtype = pa.from_numpy_dtype(tokens.dtype)
                draft.facts.update(num_tokens=num_tokens, width=width, pooled=pooled.shape[1])
                kind = schemas.features(num_tokens, width, pooled.shape[1], dtype)
                plain = files.enter_context(_writer(draft.path / "features.parquet", kind))
                if source.num_views > 1:
                    draft.facts["views"] = source.num_views
                    kind_of_others = schemas.views(num_tokens, width, dtype)
                    others = files.enter_context(_writer(draft.path / "views.parquet", kind_of_others))
            clip_ids = pa.array([source.clip_ids[r] for r in part])
            _write(plain, kind, tokens, {"clip_id": clip_ids, "pooled": lists(pooled)})
            part = [row for row in part if source.clip_ids[row] in trained]
            if others is not None and part:
                clip_ids = pa.array([source.clip_ids[r] for r in part])
                for view in range(1, source.num_views):
                    views = pa.array([view] * len(part))
                    _write(others, kind_of_others, take(part, view)[0], {"clip_id": clip_ids, "view": views})
            done = min(start + features.batch_size, len(rows))
            log({"clips": done}, done)
    draft.measured["clips_made"] = made
    draft.count(ok=len(rows))


def _writer(path: Path, kind: schemas.Table) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, kind.schema(), compression="none", use_dictionary=False, write_page_checksum=True)


def _write(writer: pq.ParquetWriter, kind: schemas.Table, tokens: np.ndarray, columns: dict[str, pa.Array]) -> None:
    """Add tokens [B, 1+N, C] with their other columns, in row groups of a size to be read alone."""
    table = pa.table({**columns, "tokens": lists(tokens.reshape(len(tokens), -1))})
    writer.write_table(schemas.check(table, kind), row_group_size=max(1, ROW_GROUP_BYTES // tokens[0].nbytes))


def lists(rows: np.ndarray) -> pa.FixedSizeListArray:
    """float [B, D] -> one fixed-size list a row."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])
