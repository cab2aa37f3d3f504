"""What a phase begins with: model, tokenizer, what it reads and the batches; the same each time it is begun."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from ivcore.checkpoints import checkpoint
from ivcore.datasets.captions import Captions
from ivcore.errors import UserError
from ivcore.features.reader import Features
from ivcore.models import S2Model, build_s2, clip_config, clip_from_s2, lora
from ivcore.models.base import VideoTextModel
from ivcore.models.config import load_size, with_bert
from ivcore.text.tokenizer import Tokenizer
from ivcore.train.batches import Batches, nearest
from ivcore.train.job import Job
from ivcore.video.frames import Frames, normalise
from ivcore.video.views import PLAIN, Views

Source = Features | Frames


def models(job: Job, captions: Captions) -> tuple[VideoTextModel, Tokenizer]:
    """Model and tokenizer; a tokenizer is trained once, on training captions alone."""
    config, seed = job.model, job.train.seed
    is_bert = job.phase.text_tower == "bert"
    if job.init is None:
        if job.kind != "s2":
            raise UserError("clip starts from an s2 checkpoint; none was given")
        lengths = ("short", "long") if job.phase.long_share else ("short",)
        tokenizer = Tokenizer.train(_texts(captions, job.phase.languages, lengths), config.s2_vocab, "bert")
        places = max(load_size(config.size)["s2"]["text"]["max_position_embeddings"], config.s2_text_len)
        return build_s2(config.size, tokenizer.vocab_size, seed, max_position_embeddings=places), tokenizer
    model, tokenizer = checkpoint.load(job.init.path)
    if job.kind == "clip" and isinstance(model, S2Model):
        texts = _texts(captions, job.phase.languages, ("short", "long"))
        tokenizer = Tokenizer.train(texts, config.clip_vocab, "bert" if is_bert else "llama")
        shape = clip_config(config.size, tokenizer.vocab_size, seed)
        model = clip_from_s2(model, with_bert(shape) if is_bert else shape, seed)
    if job.phase.trainable == "clip_lora":
        lora.add(model, seed)  # type: ignore[arg-type]
    return model, tokenizer


def source(job: Job) -> Source:
    """Frames, or the stored tokens of the frozen trunk; where that one runs again, frames of the same views."""
    if job.inputs.kind == "features":
        return Features(job.inputs)
    views = Views.of(job.features, job.train.seed) if job.phase.reads_features else PLAIN
    return Frames(job.store, job.inputs, views)


def batches(
    job: Job, captions: Captions, model: VideoTextModel, tokenizer: Tokenizer, source: Source, device: torch.device
) -> Batches:
    """The batches of the phase; neighbours are those that `model` confuses as the phase begins."""
    found = Batches(captions, source.clip_ids, job.phase, job.stage.batch_size, job.train.seed, source.num_views)
    if job.phase.batches == "neighbours":
        found.neighbours = _confused(model, tokenizer, source, found, job.text_len, device)
    return found


def _texts(captions: Captions, languages: Sequence[str], text_classes: Sequence[str]) -> list[str]:
    """Training captions of these languages and lengths."""
    found = [t for lang in languages for c in text_classes for _, _, t in captions.texts(lang, c, "train")]
    if not found:
        raise UserError(f"no training caption in {', '.join(languages)} ({', '.join(text_classes)}) to train words on")
    return found


@torch.no_grad()
def _confused(
    model: VideoTextModel,
    tokenizer: Tokenizer,
    source: Source,
    batches: Batches,
    text_len: int,
    device: torch.device,
) -> dict[int, Any]:
    """Neighbours by the model's own contrast, on the training clips."""
    if not isinstance(model, S2Model):
        raise UserError("batches of neighbours are made for s2 phases; clip phases take random or families")
    kind = next(iter(batches.texts))
    rows = sorted(batches.texts[kind])
    model.eval()
    video, text = [], []
    for start in range(0, len(rows), 256):
        part = rows[start : start + 256]
        if isinstance(source, Features):
            pooled = model.pool(source.tokens(part).float().to(device))
        else:
            pooled = model.encode_video(normalise(source.batch(part).to(device)))[1]
        ids, mask = tokenizer.encode([batches.texts[kind][r][0] for r in part], text_len)
        states = model.encode_text(ids.to(device), mask.to(device))
        video.append(F.normalize(model.project_video(pooled).float(), dim=-1).cpu())
        text.append(F.normalize(model.project_text(states).float(), dim=-1).cpu())
    model.train()
    return nearest(torch.cat(video), torch.cat(text), rows)
