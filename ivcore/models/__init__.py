"""InternVideo2's two video-text models, s2 and clip, as transformers models under upstream's parameter names."""

from transformers import AutoConfig, AutoModel

from ivcore.models.clip import ClipModel, build_clip, clip_from_s2
from ivcore.models.config import (
    ClipConfig,
    S2Config,
    clip_config,
    load_size,
    s2_config,
    size_names,
)
from ivcore.models.s2 import S2Model, build_s2

for _config, _model in ((S2Config, S2Model), (ClipConfig, ClipModel)):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)

__all__ = [
    "ClipConfig",
    "ClipModel",
    "S2Config",
    "S2Model",
    "build_clip",
    "build_s2",
    "clip_config",
    "clip_from_s2",
    "load_size",
    "s2_config",
    "size_names",
]
