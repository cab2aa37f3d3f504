"""A phase from the checkpoint before to the next: begin, run the loop, hold it to its promises, write."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch

from ivcore.checkpoints import checkpoint
from ivcore.config import TrainConfig
from ivcore.datasets.captions import Captions
from ivcore.errors import WorkError
from ivcore.models import ClipModel, lora
from ivcore.models import device as devices
from ivcore.models.base import VideoTextModel
from ivcore.models.freeze import apply_policy, digest, verify
from ivcore.retrieval.embed import Encoder
from ivcore.store import schemas
from ivcore.store.artifacts import Draft
from ivcore.store.log import Log
from ivcore.train import setup
from ivcore.train.frozen_texts import FrozenTexts, pays
from ivcore.train.job import Job
from ivcore.train.loop import Loop
from ivcore.train.parallel import ALONE, Ranks, whole
from ivcore.train.source import open_source
from ivcore.train.totals import Totals
from ivcore.train.validate import Validation

Result = dict[str, Any]  # rows, facts and measured of a record


def fit(draft: Draft, job: Job, log: Log) -> None:
    """Train the phase and write the checkpoint into `draft`; several ranks are processes of their own.

    Raises:
        WorkError: if a loss is no number, or a frozen parameter moved.
    """
    if job.train.ranks > 1:
        from ivcore.train import launch

        result = launch.train(job, draft.path, log)
    else:
        result = train(job, draft.path, log, ALONE)
    draft.count(ok=result["rows"])
    draft.facts.update(result["facts"])
    draft.measured.update(result["measured"])
    draft.workers_cpu_s += result["measured"]["cpu_s_before"]
    draft.superseded.append(job.place)


@devices.memory("a smaller batch_size of the stage, grad_cache_chunk or train.checkpoint_vision")
def train(job: Job, out: Path, log: Log, ranks: Ranks) -> Result:
    """Train the phase as one of `ranks`; rank 0 writes model, tokenizer and curves into `out`."""
    phase = job.phase
    torch.set_num_threads(job.train.threads)
    device = ranks.device(job.train.device)
    captions = Captions(job.manifest)
    model, tokenizer = setup.model_and_tokenizer(job, captions)
    encoder = Encoder(model, tokenizer, job.text_len, device, getattr(torch, job.train.dtype))
    trained = apply_policy(model, phase.trainable)
    frozen = sorted(set(dict(model.named_parameters())) - set(trained))
    before = digest(model, frozen)
    kept = copy.deepcopy(model) if ranks.sharded or job.train.weights != "float32" else model  # whole, and float32
    _fit_memory(model, job.train, device)
    torch.nn.Module.to(model, device).train()
    source = open_source(job)
    batches = setup.batches(job, captions, encoder, source)
    phase = batches.phase  # epochs counted out in steps
    validate = Validation(job, captions, source) if job.stage.validate_every else None
    _round_frozen(model, getattr(torch, job.train.weights))
    loop = Loop(encoder, source, job.train, job.stage, phase, ranks, validate)
    captions_read = {text for texts in batches.texts.values() for own in texts.values() for text in own}
    if pays(model, len(captions_read), phase.steps * batches.batch_size):
        loop.backward.texts = FrozenTexts(encoder, captions_read)
    resumed = loop.run(batches, log, job.place)

    verify(model, phase.trainable)
    after = _settle(model, kept, frozen)
    if before != after:
        raise WorkError(f"{job.kind}/{phase.name}: a frozen parameter moved; this is a defect, please report it")
    result = _result(job, kept, loop.totals, trained, before, after)
    result["measured"] |= {"resumed_from": resumed, "ranks": ranks.count, "cpu_s_before": round(loop.cpu_s_before, 3)}
    if ranks.rank == 0:
        if phase.trainable == "clip_lora" and isinstance(kept, ClipModel):
            lora.merge(kept)
        checkpoint.save(kept, tokenizer, out)
        schemas.write(out / "curves.parquet", loop.totals.curves, schemas.CURVES)
    return result


def _fit_memory(model: VideoTextModel, train: TrainConfig, device: torch.device) -> None:
    """Blocks that compute twice instead of remembering, and compiled ones; neither is a part of the model's config."""
    vision: Any = model.vision_encoder
    vision.shape = dataclasses.replace(vision.shape, checkpoint_blocks=train.checkpoint_vision)
    text: Any = model.text_encoder
    own: Any = getattr(text, "transformer", None) or getattr(text, "bert", None)
    if train.checkpoint_text and hasattr(own, "gradient_checkpointing_enable"):  # transformers' own stack
        own.gradient_checkpointing_enable({"use_reentrant": False})
    elif train.checkpoint_text and hasattr(text.shape, "checkpoint_layers"):
        text.shape = dataclasses.replace(text.shape, checkpoint_layers=True)
    for block in vision.blocks if train.compiles(device.type) else []:
        block.compile(dynamic=False)


def _round_frozen(model: VideoTextModel, dtype: torch.dtype) -> None:
    """What stands still in `dtype`; what trains stays in float32, where a small step is not rounded away."""
    for parameter in model.parameters():
        if not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


@torch.no_grad()
def _settle(model: VideoTextModel, kept: VideoTextModel, frozen: list[str]) -> str:
    """Bring what was trained into `kept`, on the CPU in eval mode; the digest of what should have stood still."""
    if model is kept:
        kept.cpu()
    else:
        own = dict(kept.named_parameters())
        for name, parameter in model.named_parameters():
            value = whole(parameter.detach()).cpu()
            # What was frozen stays as it was before it was rounded.
            if name not in frozen or not torch.equal(value, own[name].to(value.dtype)):
                own[name].copy_(value)
    kept.train(False)
    return digest(kept, frozen)


def _result(job: Job, model: VideoTextModel, totals: Totals, trained: list[str], before: str, after: str) -> Result:
    phase = job.phase
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    speed = totals.samples / max(totals.seconds, 1e-9)
    facts = {
        "phase": phase.name,
        "steps": totals.step,
        "samples": totals.samples,
        "text_len": job.text_len,
        "trained_names": trained,
        "params_total": sum(sizes.values()),
        "params_trained": sum(sizes[n] for n in trained),
        "digest_before": before,
        "digest_after": after,
        "vision_digest": digest(model, [n for n in sizes if n.startswith("vision_encoder.")]),
        "train_gflop": round(totals.gflop, 3),
        "skipped_steps": totals.skips,
        "loss_spikes": totals.spikes,
        "condition": {name: getattr(phase, name) for name in ("vtc_negatives", "batches", "vtc", "vtm")},
    }
    if job.stage.validate_every:
        facts |= {"best_step": totals.best_step, "best_val_r1": totals.best, "kept": job.stage.keep}
    measured = {"train_s": round(totals.seconds, 3), "videos_per_s": round(speed, 1)}
    return {"rows": totals.samples, "facts": facts, "measured": measured}
