"""A checkpoint folder: model.safetensors and config.json as transformers writes them, and the tokenizer beside them."""

from pathlib import Path

import torch
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

import ivcore.models  # noqa: F401  registers s2 and clip with AutoModel
from ivcore.errors import UserError
from ivcore.models.base import VideoTextModel
from ivcore.store import soundness
from ivcore.text.tokenizer import FILE, Tokenizer


def load(folder: Path) -> tuple[VideoTextModel, Tokenizer]:
    """Model (float32, on the CPU, in eval mode) and tokenizer; loading is strict.

    Raises:
        UserError: if weights are missing or unexpected, or the tokenizer is not the one the model was trained with.
        Damaged: if one of the files is not as it was written.
    """
    soundness.check_all(folder)
    transformers_logging.disable_progress_bar()
    tokenizer = Tokenizer.load(folder)
    model: VideoTextModel = AutoModel.from_pretrained(folder, dtype=torch.float32)
    trained_with = model.config.tokenizer_sha256
    if trained_with not in (None, tokenizer.sha256):
        raise UserError(
            f"{folder / FILE} has sha256 {tokenizer.sha256[:12]}, the model was trained with {trained_with[:12]}: its "
            "words would mean other things; put the model's own tokenizer there"
        )
    return model.eval(), tokenizer


def save(model: VideoTextModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write model and tokenizer into a folder that exists; config.json takes the tokenizer's hash."""
    transformers_logging.disable_progress_bar()
    model.config.tokenizer_sha256 = tokenizer.sha256
    model.save_pretrained(folder)
    tokenizer.save(folder)
