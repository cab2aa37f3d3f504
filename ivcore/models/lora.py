"""LoRA branches on clip's LLaMA, by peft: put on before training, merged into the matrices after it.

Rank, alpha and dropout are upstream's (16, 32, 0.1; on q_proj and v_proj), so that a branch adds 2BA. Between phases
and in files there are no branches: a checkpoint has the names of a model that never had any. peft is an extra of the
distribution (`pip install ivflow[lora]`) and imported only here.
"""

import math
import zlib
from typing import Any

import torch
from torch import nn

from ivcore.errors import UserError
from ivcore.models.clip import ClipModel
from ivcore.models.llama import LlamaTower

RANK, ALPHA, DROPOUT = 16, 32, 0.1
TARGETS = ("q_proj", "v_proj")


@torch.no_grad()
def add(model: ClipModel, seed: int) -> None:
    """Put a branch beside q and v of every text layer; A starts as peft's, from `seed` and its name, and B at zero.

    Raises:
        UserError: without peft, or when the text tower is no LLaMA.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise UserError("the policy clip_lora needs peft; install it with: pip install 'ivflow[lora]'") from None
    if not isinstance(model.text_encoder, LlamaTower):
        kind = model.config.text_shape().kind
        raise UserError(f"the policy clip_lora is for clip's LLaMA; the text tower of this model is of kind {kind}")
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, lora_dropout=DROPOUT, target_modules=list(TARGETS))
    with torch.random.fork_rng(devices=[]):  # peft draws from the global generator; what it draws is replaced below
        inject_adapter_in_model(config, model.text_encoder.transformer)
    for name, parameter in model.named_parameters():
        if ".lora_A." in name:
            generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
            bound = 1.0 / math.sqrt(parameter.shape[1])
            parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
    model.train(model.training)  # what peft made is in training mode


def merge(model: ClipModel) -> None:
    """W + 2BA into every matrix, and the branches are gone; the parameters have their own names again."""
    for parent in list(model.text_encoder.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "lora_A"):
                branch: Any = child
                branch.merge(safe_merge=True)
                whole: nn.Module = branch.get_base_layer()
                setattr(parent, name, whole)
