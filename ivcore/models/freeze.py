"""Which parameters train: policies by name. What is frozen takes no gradient and stays in eval mode.

The freezing is on the module itself (`is_frozen`), and VideoTextModel.train() respects it: without that, `train()`
would switch dropout and stochastic depth back on inside towers that are meant to stand still.
"""

import hashlib
import re
from collections.abc import Iterable

import torch
from torch import nn

from ivcore.errors import UserError
from ivcore.models.base import VideoTextModel

# Never part of a loss here: the alignment decoders and the position tables they add.
UNUSED = r"vision_encoder\.(final_)?clip_(decoder|pos_embed|img_pos_embed).*"

CLIP = (r"vision_encoder\.clip_projector\..*", r"vision_align\..*", r"temp")

# Regular expressions over whole parameter names. {text_layers} and {fusion_layers} stand for layer numbers of BERT.
POLICIES: dict[str, tuple[str, ...]] = {
    # every parameter that a loss can reach
    "all": (rf"(?!{UNUSED}$).*",),
    # upstream's clip: the attention pooling, the alignment of the small sizes, the temperature
    "clip": CLIP,
    # the same and the text tower's last matrix, one of upstream's switches
    "clip_projection": (*CLIP, r"text_encoder\.(text_projection|projection_layer)"),
    # the same as "clip" and the LoRA branches of `ivcore/models/lora.py`, the other switch
    "clip_lora": (*CLIP, r"text_encoder\.transformer\..*\.lora_[AB]\..*"),
    # "clip" and the text tower: where no pretrained one exists (tiny)
    "clip_text": (*CLIP, r"text_encoder\..*"),
    # the same as "clip" and the rest of the vision tower
    "clip_trunk": (rf"(?!{UNUSED}$)vision_encoder\..*", r"vision_align\..*", r"temp"),
    # s2: only what matching adds
    "fusion": (
        r"text_encoder\.bert\.encoder\.layer\.({fusion_layers})\..*",
        r"av_concat_vision_proj\..*",
        r"itm_head\..*",
    ),
    # s2: only what contrast needs on top of the trunk
    "vtc_head": (
        r"vision_encoder\.clip_projector\..*",
        r"text_encoder\.bert\.embeddings\..*",
        r"text_encoder\.bert\.encoder\.layer\.({text_layers})\..*",
        r"vision_proj\..*",
        r"text_proj\..*",
        r"temp",
    ),
}
FOR_MODEL = {
    "ivflow_s2": ("all", "fusion", "vtc_head"),
    "ivflow_clip": ("all", "clip", "clip_projection", "clip_lora", "clip_text", "clip_trunk"),
}


def trained_names(model: VideoTextModel, policy: str) -> list[str]:
    """Sorted names of the parameters that train under a policy.

    Raises:
        UserError: for an unknown policy, or one that is not meant for this kind of model.
    """
    known = FOR_MODEL[model.config.model_type]
    if policy not in known:
        raise UserError(f"no training policy {policy!r} for {type(model).__name__}; known: {', '.join(known)}")
    layers = {"text_layers": "", "fusion_layers": ""}
    if model.config.model_type == "ivflow_s2":
        shape = model.config.text_shape()
        layers["text_layers"] = "|".join(str(i) for i in range(shape.fusion_layer))
        layers["fusion_layers"] = "|".join(str(i) for i in range(shape.fusion_layer, shape.num_hidden_layers))
    if policy == "clip_lora" and not any(".lora_A." in name for name, _ in model.named_parameters()):
        raise UserError("the policy clip_lora finds no LoRA branches; put them on with ivcore.models.lora.add")
    patterns = [pattern.format(**layers) if "{" in pattern else pattern for pattern in POLICIES[policy]]
    return sorted(name for name, _ in model.named_parameters() if any(re.fullmatch(p, name) for p in patterns))


def apply_policy(model: VideoTextModel, policy: str) -> list[str]:
    """Let exactly the parameters of `policy` train; returns their names, sorted. May be called again with another.

    Frozen parameters lose `requires_grad` and their gradient. A module without a trained parameter below it goes to
    eval mode and stays there under `model.train()`; in upstream's clip dropout and stochastic depth go on there.
    """
    names = set(trained_names(model, policy))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in names)
        if name not in names:
            parameter.grad = None
    _mark(model)
    model.train(model.training)
    return sorted(names)


def verify(model: VideoTextModel, policy: str) -> None:
    """Check that the model is still as `apply_policy` left it.

    Raises:
        UserError: naming parameters that train and should not, or the reverse, or frozen modules in training mode.
    """
    expected = set(trained_names(model, policy))
    found = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    if expected != found:
        raise UserError(f"policy {policy!r} is broken: {', '.join(sorted(expected ^ found)[:8])}")
    awake = [n for n, m in model.named_modules() if getattr(m, "is_frozen", False) and m.training]
    if awake:
        raise UserError(f"policy {policy!r}: frozen but in training mode: {', '.join(awake[:8])}")


def digest(model: nn.Module, names: Iterable[str]) -> str:
    """sha256, in hex, of the named parameters or buffers: sorted name, dtype, shape, bytes. Equal means not moved.

    Raises:
        UserError: if a name is not in the model.
    """
    state = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    sha = hashlib.sha256()
    for name in sorted(names):
        if name not in state:
            raise UserError(f"{type(model).__name__} has no parameter {name!r}")
        value = state[name].detach().cpu().contiguous()
        sha.update(f"{name} {value.dtype} {list(value.shape)}\n".encode())
        sha.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


def _mark(module: nn.Module) -> None:
    """Mark as frozen every module that holds parameters of which none trains, with all it contains (dropout, say)."""
    parameters = list(module.parameters())
    if parameters and not any(p.requires_grad for p in parameters):
        for part in module.modules():
            part.is_frozen = True  # type: ignore[assignment]
    else:
        module.is_frozen = False  # type: ignore[assignment]
        for child in module.children():
            _mark(child)
