"""What a phase reads its clips from: decoded frames, or the stored tokens of a frozen trunk."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ivcore.features.reader import Features
from ivcore.retrieval.embed import Encoder
from ivcore.train.job import Job
from ivcore.video.frames import Frames, normalise
from ivcore.video.views import PLAIN, Views

Source = Features | Frames


def open_source(job: Job) -> Source:
    """The job's source; where a frozen trunk runs again, frames of the views that its features would hold."""
    if job.inputs.kind == "features":
        return Features(job.inputs)
    views = Views.of(job.features, job.train.seed) if job.phase.reads_features else PLAIN
    return Frames(job.store, job.inputs, views)


def tokens(encoder: Encoder, source: Source, rows: Sequence[int]) -> Tensor:
    """The trunk's tokens [B, 1+N, C] of plain clips, read or made, on the encoder's device."""
    if isinstance(source, Features):
        return source.tokens(rows).to(encoder.device)
    model: Any = encoder.model
    with encoder.arithmetic():
        made: Tensor = model.encode_tokens(normalise(source.batch(rows).to(encoder.device)))
    return made
