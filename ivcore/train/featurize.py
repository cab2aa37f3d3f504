"""Token and pooled features of a checkpoint's vision tower, one Parquet row a clip."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tqdm import tqdm

from ivcore import schemas
from ivcore.config import FeaturesConfig, TrainConfig
from ivcore.data.loader import Captions, Frames, normalise
from ivcore.steps import Log
from ivcore.store import Artifact, Draft, Store
from ivcore.train import checkpoint

ROW_GROUP_BYTES = 1 << 20  # what a reader of one clip has to read at least; a clip of S14 is larger and stands alone


@torch.no_grad()
def write_features(
    draft: Draft,
    store: Store,
    features: FeaturesConfig,
    train: TrainConfig,
    frames: Artifact,
    encoder: Artifact,
    log: Log,
    split: str | None = None,
) -> None:
    """Encode every decoded clip (of a split) and write features.parquet; memory holds one batch."""
    torch.set_num_threads(train.threads)
    device = checkpoint.device(train.device)
    model, _ = checkpoint.load(encoder.path)
    model.to(device)
    source = Frames(store, frames)
    model.vision_encoder.take_frames(source.shape[0])
    writer: pq.ParquetWriter | None = None
    kind: schemas.Table | None = None
    rows = [row for row, num in enumerate(source.num_frames) if num == source.shape[0]]  # of videos, not of images
    if split:
        wanted = set(Captions(store.get(frames.record()["inputs"]["manifest"])).clips(split))
        rows = [row for row in rows if source.clip_ids[row] in wanted]
    try:
        for start in tqdm(range(0, len(rows), features.batch_size), desc="featurize", unit="batch", disable=None):
            part = rows[start : start + features.batch_size]
            video = normalise(source.batch(part).to(device))
            with torch.autocast(device.type, getattr(torch, train.dtype), enabled=train.dtype != "float32"):
                tokens = model.encode_tokens(video)  # [B, 1+N, C]
                pooled = model.vision_encoder.pool(tokens)  # [B, P]
            flat = tokens.float().cpu().numpy().astype(features.dtype)  # [B, 1+N, C]
            if kind is None:
                _, num_tokens, width = flat.shape
                kind = schemas.features(num_tokens, width, pooled.shape[1], pa.from_numpy_dtype(flat.dtype))
                draft.facts.update(num_tokens=num_tokens, width=width, pooled=pooled.shape[1])
                writer = pq.ParquetWriter(
                    draft.path / "features.parquet",
                    kind.schema(),
                    compression="none",
                    use_dictionary=False,
                    write_page_checksum=True,
                )
            table = pa.table(
                [
                    pa.array([source.clip_ids[r] for r in part]),
                    lists(flat.reshape(len(part), -1)),
                    lists(pooled.float().cpu().numpy()),
                ],
                names=["clip_id", "tokens", "pooled"],
            )
            assert writer is not None
            rows_each = max(1, ROW_GROUP_BYTES // flat[0].nbytes)
            writer.write_table(schemas.check(table, kind), row_group_size=rows_each)
            log({"clips": start + len(part)}, start + len(part))
    finally:
        if writer is not None:
            writer.close()
    draft.count(ok=len(rows))


def lists(rows: np.ndarray) -> pa.FixedSizeListArray:
    """float [B, D] -> one fixed-size list a row."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])
