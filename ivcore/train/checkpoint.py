"""A checkpoint folder: model.safetensors and config.json as transformers writes them, and the tokenizer beside them."""

from pathlib import Path

import torch
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

import ivcore.models  # noqa: F401  registers s2 and clip with AutoModel
from ivcore.data.tokenizer import Tokenizer
from ivcore.models.base import VideoTextModel


def device(name: str) -> torch.device:
    """The torch device of a config: auto takes CUDA where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def load(folder: Path) -> tuple[VideoTextModel, Tokenizer]:
    """Model (float32, on the CPU, in eval mode) and tokenizer; loading is strict."""
    transformers_logging.disable_progress_bar()
    model: VideoTextModel = AutoModel.from_pretrained(folder)
    return model.eval(), Tokenizer.load(folder)


def save(model: VideoTextModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write model and tokenizer into a folder that exists."""
    transformers_logging.disable_progress_bar()
    model.save_pretrained(folder)
    tokenizer.save(folder)
