"""What the phases ask of the clips there are, looked at before the first step: hours later a batch would stop them."""

from collections.abc import Iterator, Sequence

from ivcore.config import Phase, StageConfig
from ivcore.datasets.captions import Captions
from ivcore.errors import UserError
from ivcore.train.batches import Batches
from ivcore.train.job import Job
from ivcore.train.validate import queries


def check(job: Job, captions: Captions, clip_ids: Sequence[str]) -> None:
    """Look at the phase of the job and at those that follow it, clip's after s2's.

    Raises:
        UserError: naming the first phase that cannot be trained on these clips, and what to change.
    """
    for kind, stage, phase in _ahead(job):
        batches = Batches(captions, clip_ids, phase, stage.batch_size, job.train.seed)
        counted = batches.phase  # epochs counted out in steps
        if counted.warmup_steps > counted.steps:
            raise UserError(
                f"phase {phase.name}: a warm-up of {counted.warmup_steps} steps in a phase of {counted.steps}, so the "
                f"learning rate never comes to its peak; set warmup_steps to {counted.steps // 10}, or train longer"
            )
        for name, size in batches.sizes().items():
            pieces(size, name, job.train.ranks, stage, phase)
        if stage.validate_every:
            queries(captions, clip_ids, kind, stage, phase)


def pieces(size: int, name: str, ranks: int, stage: StageConfig, phase: Phase) -> int:
    """Parts in which each rank works through its rows of a batch of `size` clips.

    Args:
        name: what the batch is made of, for the message.

    Raises:
        UserError: if the batch cannot be divided among ranks and parts.
    """
    chunk = stage.grad_cache_chunk if phase.vtc else 0  # without contrast there is nothing to cache
    found = max(1, -(-(size // ranks) // chunk)) if chunk else stage.accumulate
    what = f"phase {phase.name}: a batch of {size} clips"
    cure = f"choose another batch_size than {stage.batch_size}"
    if size < stage.batch_size:
        cure += f", add clips of {name}, or leave them out"
    if size % (found * ranks):
        raise UserError(f"{what} cannot be divided by train.ranks {ranks} times {found} parts; {cure}")
    if phase.vtm and size < 2 * found * ranks:
        raise UserError(f"{what} in {found * ranks} parts leaves one clip in each, and matching needs two; {cure}")
    return found


def _ahead(job: Job) -> Iterator[tuple[str, StageConfig, Phase]]:
    """(s2 or clip, its stage, phase) from the phase of the job on."""
    yield job.kind, job.stage, job.phase
    for kind, stage in {"s2": job.train.s2, "clip": job.train.clip}.items():
        names = [phase.name for phase in stage.phases]
        if kind != job.kind:
            after = stage.phases if job.kind == "s2" else ()
        else:
            after = stage.phases[names.index(job.phase.name) + 1 :] if job.phase.name in names else ()
        yield from ((kind, stage, phase) for phase in after)
