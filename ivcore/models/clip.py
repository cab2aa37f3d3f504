"""clip: the vision tower, an attention pooling and a text tower; built on the trunk that s2 trained.

Shapes: B videos or texts, T frames, N patches, C vision width, E embedding, L tokens.
Source: InternVideo2 multi_modality, models/internvideo2_clip.py (1B, 6B) and internvideo2_clip_small.py (S, B, L).
"""

from typing import Any

import torch
from torch import Tensor, nn

from ivcore.models.base import VideoTextModel, load_strict, unfilled
from ivcore.models.clip_bert import ClipBertTower
from ivcore.models.config import ClipConfig, clip_config
from ivcore.models.convert import clip_vision_state
from ivcore.models.layers import LAYER_NORM_EPS
from ivcore.models.llama import LlamaTower
from ivcore.models.mobileclip import MobileClipTower
from ivcore.models.s2 import S2Model
from ivcore.models.vision import VisionTower

TOWERS: dict[str, Any] = {"llama": LlamaTower, "mobileclip": MobileClipTower, "bert": ClipBertTower}


class ClipModel(VideoTextModel):
    """The clip model; a new one starts from `config.seed`."""

    config_class = ClipConfig
    config: ClipConfig

    def __init__(self, config: ClipConfig) -> None:
        super().__init__(config)
        vision, text = config.vision_shape(), config.text_shape()
        with unfilled():
            self.vision_encoder = VisionTower(vision)
            if config.align_dim:
                self.vision_align = nn.Sequential(
                    nn.LayerNorm(vision.pool_width, eps=LAYER_NORM_EPS), nn.Linear(vision.pool_width, config.align_dim)
                )
            self.text_encoder = TOWERS[text.kind](text, config.embed_dim)
        self.temp = nn.Parameter(torch.tensor(config.temp))
        self._start()

    @property
    def num_patches(self) -> int:
        """N, patches of a full-length video without the class token."""
        return self.vision_encoder.shape.num_patches

    def encode_tokens(self, video: Tensor) -> Tensor:
        """Tokens of the last block: float [B, T, 3, H, W], normalised -> [B, 1+N, C]."""
        return self.vision_encoder(video)

    def pool(self, tokens: Tensor) -> Tensor:
        """The video's vector, not normalised: [B, 1+N, C] -> [B, E] (attention pooling, then the size's alignment)."""
        pooled = self.vision_encoder.pool(tokens)  # [B, P]
        return self.vision_align(pooled) if self.config.align_dim else pooled

    def encode_video(self, video: Tensor) -> Tensor:
        """[B, T, 3, H, W] -> [B, E], not normalised."""
        return self.pool(self.encode_tokens(video))

    def encode_text(self, ids: Tensor) -> Tensor:
        """int [B, L], padded on the right with 0 -> [B, E], not normalised."""
        return self.project_text(self.read_text(ids))

    def read_text(self, ids: Tensor) -> Tensor:
        """What the text tower says before its last matrix: int [B, L] -> [B, H]."""
        return self.text_encoder.read(ids)

    def project_text(self, read: Tensor) -> Tensor:
        """The last matrix: [B, H] -> [B, E]."""
        return self.text_encoder.project(read)


def build_clip(size: str, vocab_size: int | None, seed: int, **overrides: Any) -> ClipModel:
    """A new clip model of a size, weights from `seed`; arguments and errors as in `build_s2`."""
    return ClipModel(clip_config(size, vocab_size, seed, **overrides))


def clip_from_s2(s2: S2Model, config: ClipConfig, seed: int) -> ClipModel:
    """A clip model that goes on from s2's trunk and attention pooling; the rest starts from `seed`.

    The position table is resized when frames or pixels differ. Dropped, as upstream: s2's text tower, projections,
    matching head, temperature, alignment decoders and the position tables of images and decoders.

    Raises:
        UserError: if the two vision towers differ in more than frames, pixels, tables and decoders.
    """
    config = ClipConfig.from_dict({**config.to_dict(), "seed": seed})
    model = ClipModel(config)
    carried = clip_vision_state(s2.state_dict(), s2.config.vision_shape(), config.vision_shape()).state
    vision = {name.removeprefix("vision_encoder."): value for name, value in carried.items()}
    load_strict(model.vision_encoder, vision)
    return model
