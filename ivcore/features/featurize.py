"""Token and pooled features of a checkpoint's vision tower, one Parquet row a clip, and one a further view of it.

A clip whose frames went through the same tower before is copied: of a data set that grew only new clips are encoded.
"""

import collections
import concurrent.futures
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor
from tqdm import tqdm

from ivcore.checkpoints import checkpoint
from ivcore.config import FeaturesConfig, TrainConfig
from ivcore.datasets.captions import Captions
from ivcore.errors import WorkError
from ivcore.features.prefetch import prefetch
from ivcore.features.reuse import EarlierFeatures
from ivcore.models import device as devices
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Draft, Store
from ivcore.store.log import Log
from ivcore.video.frames import Frames, normalise
from ivcore.video.views import Views

ROW_GROUP_BYTES = 1 << 20  # what a reader of one clip has to read at least; a clip of S14 is larger and stands alone

WAITING = 2  # batches that wait for the thread that writes
Job = tuple[list[int], int]  # rows, and which view of them


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
    compiled = train.compiles(device.type)
    for block in model.vision_encoder.blocks if compiled else []:
        block.compile(dynamic=False)
    captions = Captions(store.get(frames.record()["inputs"]["manifest"]))
    rows = [row for row, clip in enumerate(source.clip_ids) if captions.media(clip) == "video"]
    if split:
        wanted = set(captions.clips(split))
        rows = [row for row in rows if source.clip_ids[row] in wanted]
    trained = set(captions.clips("train"))
    earlier = EarlierFeatures(store, recipe, frames)
    jobs = []  # (rows, view), in the order they are written
    for start in range(0, len(rows), features.batch_size):
        part = rows[start : start + features.batch_size]
        jobs.append((part, 0))
        part = [row for row in part if source.clip_ids[row] in trained]
        jobs += [(part, view) for view in range(1, source.num_views) if part]

    def read(job: Job) -> _Read:
        """What is kept of the clips already, and the frames of the others."""
        part, view = job
        names = [source.clip_ids[row] for row in part]
        old = [n for n, name in enumerate(names) if earlier.has(name, view)]
        new = sorted(set(range(len(part))).difference(old))
        kept = earlier.get([names[n] for n in old], view, features.dtype) if old else None
        fresh = source.batch([part[n] for n in new], [view] * len(new)) if new else None
        if fresh is not None and device.type != "cpu":
            fresh = fresh.pin_memory()
        return _Read(kept, fresh, [names[n] for n in new], np.argsort(old + new))

    def encode(frames: Tensor) -> _Encoded:
        """Tokens [B, 1+N, C] in the type that is stored and pooled vectors [B, P], on their way from the device."""
        num = len(frames)
        if compiled and num < features.batch_size:  # another size would be compiled anew
            frames = torch.cat([frames, frames[:1].expand(features.batch_size - num, -1, -1, -1, -1)])
        video = normalise(frames.to(device, non_blocking=True))
        with torch.autocast(device.type, getattr(torch, train.dtype), enabled=train.dtype != "float32"):
            tokens = model.encode_tokens(video)  # [B, 1+N, C]
            pooled = model.vision_encoder.pool(tokens)  # [B, P]
        return _Encoded.of(tokens[:num].to(getattr(torch, features.dtype)), pooled[:num].float())

    threads = overlaps(device)
    work = prefetch(jobs, read) if threads else ((job, read(job)) for job in jobs)
    out, made, done = _Output(draft, source, threads), 0, 0
    with contextlib.closing(work), out:
        for (part, view), found in tqdm(work, "featurize", len(jobs), unit="batch", disable=None):
            fresh = None if found.frames is None else encode(found.frames)
            out.write(part, view, found, fresh)
            if view == 0:
                done += len(part)
                made += 0 if found.frames is None else len(found.frames)
                log({"clips": done}, done)
    draft.measured["clips_made"] = made
    draft.count(ok=len(rows))


def overlaps(device: torch.device) -> bool:
    """On a GPU one thread reads and one writes, so that the card waits for neither; a CPU has no cores for them."""
    return device.type != "cpu"


@dataclass(frozen=True)
class _Read:
    """A batch as it is read: kept (tokens, pooled) of some clips, frames and names of the others, the order of all."""

    kept: tuple[Tensor, np.ndarray] | None
    frames: Tensor | None
    new: list[str]
    order: np.ndarray


@dataclass(frozen=True)
class _Encoded:
    """Tokens, pooled vectors and whether both are numbers (bool [B]); on the host once `there` has happened."""

    tokens: Tensor
    pooled: Tensor
    finite: Tensor
    there: torch.cuda.Event | None = None

    @classmethod
    def of(cls, tokens: Tensor, pooled: Tensor) -> "_Encoded":
        """Their copy from the device is begun, and nobody waits for it."""
        finite = tokens.isfinite().flatten(1).all(dim=1) & pooled.isfinite().all(dim=1)
        if not tokens.is_cuda:
            return cls(tokens, pooled, finite)
        tokens, pooled, finite = (
            torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True)
            for t in (tokens, pooled, finite)
        )
        there = torch.cuda.Event()
        there.record()
        return cls(tokens, pooled, finite, there)

    def settled(self, clip_ids: Sequence[str]) -> tuple[Tensor, np.ndarray]:
        """Tokens and pooled vectors; waits for them.

        Raises:
            WorkError: naming the clips whose features are no numbers, which ranking would meet much later.
        """
        if self.there is not None:
            self.there.synchronize()
        bad = [clip_id for clip_id, good in zip(clip_ids, self.finite.tolist(), strict=True) if not good]
        if bad:
            dtype = str(self.tokens.dtype).removeprefix("torch.")
            raise WorkError(
                f"the features of {len(bad)} clips of a batch are not finite ({', '.join(bad[:3])}): the checkpoint "
                f"has diverged, or they are too large for features.dtype {dtype}"
            )
        return self.tokens, self.pooled.numpy()


class _Output:
    """features.parquet and views.parquet, opened when the first batch says how large a clip is."""

    def __init__(self, draft: Draft, source: Frames, threads: bool) -> None:
        self.draft, self.source = draft, source
        self.files: dict[bool, tuple[pq.ParquetWriter, schemas.Table]] = {}  # by whether it is that of the plain views
        self.thread = concurrent.futures.ThreadPoolExecutor(1, "iv-features") if threads else None
        self.waiting: collections.deque[concurrent.futures.Future[None]] = collections.deque()

    def __enter__(self) -> "_Output":
        return self

    def __exit__(self, *error: object) -> None:
        try:
            while self.waiting and error[0] is None:
                self.waiting.popleft().result()
        finally:
            if self.thread is not None:
                self.thread.shutdown(cancel_futures=True)
            for writer, _ in self.files.values():
                writer.close()

    def write(self, part: Sequence[int], view: int, read: _Read, fresh: _Encoded | None) -> None:
        """Add a batch, here or in the thread; what failed there is raised a few batches later."""
        if self.thread is None:
            return self._write(part, view, read, fresh)
        if len(self.waiting) == WAITING:
            self.waiting.popleft().result()
        self.waiting.append(self.thread.submit(self._write, part, view, read, fresh))

    def _write(self, part: Sequence[int], view: int, read: _Read, fresh: _Encoded | None) -> None:
        names = [self.source.clip_ids[row] for row in part]
        got = ([read.kept] if read.kept else []) + ([fresh.settled(read.new)] if fresh else [])
        tokens = torch.cat([some for some, _ in got])[read.order]
        pooled = np.concatenate([some for _, some in got])[read.order]
        if not self.files:
            self._open(tokens, pooled)
        writer, kind = self.files[view == 0]
        columns = {"clip_id": pa.array(names)}
        columns |= {"view": pa.array([view] * len(part))} if view else {"pooled": lists(pooled)}
        _write(writer, kind, tokens, columns)

    def _open(self, tokens: Tensor, pooled: np.ndarray) -> None:
        _, num_tokens, width = tokens.shape
        dtype = str(tokens.dtype).removeprefix("torch.")
        self.draft.facts.update(num_tokens=num_tokens, width=width, pooled=pooled.shape[1])
        kind = schemas.features(num_tokens, width, pooled.shape[1], dtype)
        self.files[True] = _writer(self.draft.path / "features.parquet", kind), kind
        if self.source.num_views > 1:
            self.draft.facts["views"] = self.source.num_views
            others = schemas.views(num_tokens, width, dtype)
            self.files[False] = _writer(self.draft.path / "views.parquet", others), others


def _writer(path: Path, kind: schemas.Table) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, kind.schema(), compression="none", use_dictionary=False, write_page_checksum=True)


def _write(writer: pq.ParquetWriter, kind: schemas.Table, tokens: Tensor, columns: dict[str, pa.Array]) -> None:
    """Add tokens [B, 1+N, C] with their other columns, in row groups of a size to be read alone."""
    table = pa.table({**columns, "tokens": schemas.packed(tokens.contiguous().view(torch.uint8).numpy())})
    writer.write_table(schemas.check(table, kind), row_group_size=max(1, ROW_GROUP_BYTES // tokens[0].nbytes))


def lists(rows: np.ndarray) -> pa.FixedSizeListArray:
    """float [B, D] -> one fixed-size list a row."""
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).reshape(-1)), rows.shape[1])
