"""Weights under other names: s2's trunk for clip, and LoRA branches merged into the matrices they belong to."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ivcore.errors import UserError
from ivcore.models import posembed
from ivcore.models.shapes import VisionShape

# Of s2's vision tower clip has no use for these: alignment decoders, their tables, and the table of single images.
DROPPED_FROM_S2 = ("clip_decoder", "final_clip_decoder", "clip_pos_embed", "clip_img_pos_embed", "img_pos_embed")
LORA_SCALE = 2.0  # alpha 32 / rank 16, upstream's LLaMA wrapper
_LORA = re.compile(r"(.*)\.lora_([AB])\.default\.weight")


def clip_vision_state(state: Mapping[str, Tensor], old: VisionShape, new: VisionShape) -> dict[str, Tensor]:
    """The entries vision_encoder.* of an s2 state that clip keeps, the position table resized to clip's grid.

    Raises:
        UserError: if the towers differ in a number that weights depend on.
    """
    for name in ("width", "depth", "num_heads", "mlp_hidden", "pool_heads", "pool_width", "tubelet_size", "patch_size"):
        if getattr(old, name) != getattr(new, name):
            raise UserError(
                f"clip cannot go on from this s2: {name} is {getattr(old, name)} there, here {getattr(new, name)}"
            )
    kept = {
        name: value
        for name, value in state.items()
        if name.startswith("vision_encoder.") and not any(part in name for part in DROPPED_FROM_S2)
    }
    table = "vision_encoder.pos_embed"
    kept[table] = posembed.resize(kept[table], old.grid, new.grid)
    return kept


def merge_lora(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state without LoRA branches: W + 2 * B @ A in float32, rounded once to W's dtype; the rest untouched.

    Both spellings are read: `q_proj.weight` (peft 0.4) and `q_proj.base_layer.weight` (newer peft).

    Raises:
        UserError: if a branch lacks its other half or its matrix.
    """
    plain = {name.replace(".base_layer.", "."): value for name, value in state.items() if not _LORA.fullmatch(name)}
    branches: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if found := _LORA.fullmatch(name):
            branches.setdefault(found[1], {})[found[2]] = value
    for name, branch in branches.items():
        weight = plain.get(f"{name}.weight")
        if weight is None or set(branch) != {"A", "B"}:
            raise UserError(f"the LoRA branch of {name} is not whole: it needs lora_A, lora_B and {name}.weight")
        update = LORA_SCALE * (branch["B"].float() @ branch["A"].float())
        plain[f"{name}.weight"] = (weight.float() + update).to(weight.dtype)
    return plain


def is_lora(name: str) -> bool:
    """Whether a state entry is half of a LoRA branch, to be merged rather than loaded."""
    return _LORA.fullmatch(name) is not None


@torch.no_grad()
def strip_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The entries that start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
