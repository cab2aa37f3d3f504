"""What a phase begins with: model, tokenizer and the batches; the same each time it is begun."""

from collections.abc import Sequence

from ivcore.checkpoints import checkpoint
from ivcore.datasets.captions import Captions
from ivcore.errors import UserError
from ivcore.models import ClipModel, S2Model, build_s2, clip_config, clip_from_s2, lora
from ivcore.models.base import VideoTextModel
from ivcore.models.config import load_size, with_bert
from ivcore.retrieval.embed import Encoder
from ivcore.text.tokenizer import Tokenizer
from ivcore.train import pools
from ivcore.train.batches import Batches
from ivcore.train.job import Job
from ivcore.train.neighbours import confused
from ivcore.train.source import Source


def model_and_tokenizer(job: Job, captions: Captions) -> tuple[VideoTextModel, Tokenizer]:
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
        assert isinstance(model, ClipModel)
        lora.add(model, seed)
    return model, tokenizer


def batches(job: Job, captions: Captions, encoder: Encoder, source: Source) -> Batches:
    """The batches of the phase; neighbours are those that the model confuses as the phase begins.

    Raises:
        UserError: if this phase or one after it cannot be trained on these clips.
    """
    pools.check(job, captions, source.clip_ids)
    found = Batches(captions, source.clip_ids, job.phase, job.stage.batch_size, job.train.seed, source.num_views)
    if job.phase.batches == "neighbours":
        asked = {kind: pool for kind, pool in found.pools.items() if kind[0] == "video" and found.comes(kind)}
        found.neighbours = confused(encoder, source, found.first_captions(), asked)
    return found


def _texts(captions: Captions, languages: Sequence[str], text_classes: Sequence[str]) -> list[str]:
    """Training captions of these languages and lengths."""
    found = [t for lang in languages for c in text_classes for _, _, t in captions.texts(lang, c, "train")]
    if not found:
        raise UserError(f"no training caption in {', '.join(languages)} ({', '.join(text_classes)}) to train words on")
    return found
