"""s2: video and text towers, contrast in a common space, matching and masked words through fusion.

Shapes: B videos or texts, T frames, N patches, K kept patches, C vision width, P pooled width, E embedding,
L tokens, H hidden, V videos, A heads of the text tower.
Source: InternVideo2 multi_modality, models/internvideo2_stage2_visual.py (1B) and _audiovisual.py (6B, without audio).
"""

from typing import Any

import torch
from torch import Tensor, nn

from ivcore.models.base import TIED, VideoTextModel, unfilled
from ivcore.models.config import S2Config, s2_config
from ivcore.models.layers import LAYER_NORM_EPS
from ivcore.models.text import KeyValue, TextTower
from ivcore.models.vision import VisionTower


class S2Model(VideoTextModel):
    """The s2 model; a new one starts from `config.seed`."""

    config_class = S2Config
    config: S2Config
    _tied_weights_keys = TIED

    def __init__(self, config: S2Config) -> None:
        super().__init__(config)
        vision, text = config.vision_shape(), config.text_shape()
        with unfilled():
            self.vision_encoder = VisionTower(vision)
            self.text_encoder = TextTower(text, config.fusion_width or vision.width)
            if config.fusion_width:
                self.av_concat_vision_proj = nn.Sequential(
                    nn.Linear(vision.width, config.fusion_width),
                    nn.LayerNorm(config.fusion_width, eps=LAYER_NORM_EPS),
                )
            self.vision_proj = nn.Linear(vision.pool_width, config.embed_dim)
            self.text_proj = nn.Linear(text.hidden_size, config.embed_dim)
            self.itm_head = nn.Linear(text.hidden_size, 2)
        self.temp = nn.Parameter(torch.tensor(config.temp))
        self._start()

    @property
    def num_patches(self) -> int:
        """N, patches of a full-length video without the class token."""
        return self.vision_encoder.shape.num_patches

    def encode_tokens(self, video: Tensor, drop: Tensor | None = None) -> Tensor:
        """Tokens of the last block: float [B, T, 3, H, W], normalised -> [B, 1+K, C].

        Args:
            video: T is the size's number of frames, or one (tubelet) for an image.
            drop: bool [B, 1+N], True = token left out before the first block (masking.random_drop_mask).
        """
        return self.vision_encoder(video, drop)

    def pool(self, tokens: Tensor) -> Tensor:
        """[B, 1+K, C] -> [B, P], not normalised."""
        return self.vision_encoder.pool(tokens)

    def project_video(self, pooled: Tensor) -> Tensor:
        """[B, P] -> [B, E], not normalised."""
        return self.vision_proj(pooled)

    def encode_video(self, video: Tensor, drop: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(tokens [B, 1+K, C], pooled [B, P]); arguments as in `encode_tokens`."""
        tokens = self.encode_tokens(video, drop)
        return tokens, self.pool(tokens)

    def encode_text(self, ids: Tensor, mask: Tensor, unpadded: bool = False) -> Tensor:
        """Text alone: ids int [B, L], mask [B, L] (1 = token, [CLS] at position 0) -> states [B, L, H].

        Args:
            unpadded: padding is not computed; its states are zeros, and all else is the same.
        """
        return self.text_encoder.encode_unpadded(ids, mask) if unpadded else self.text_encoder.encode(ids, mask)

    def project_text(self, states: Tensor) -> Tensor:
        """States [B, L, H] -> [B, E] from position 0, not normalised."""
        return self.text_proj(states[:, 0])

    def video_kv(self, tokens: Tensor) -> list[KeyValue]:
        """Keys and values of each fusion layer, projected once a video: [V, 1+K, C] -> (k, v), each [V, A, 1+K, D]."""
        return self.text_encoder.video_kv(self.fusion_tokens(tokens))

    def fusion_tokens(self, tokens: Tensor) -> Tensor:
        """What the fusion layers read: [V, 1+K, C] -> [V, 1+K, fusion width], or the tokens as they are."""
        return self.av_concat_vision_proj(tokens) if self.config.fusion_width else tokens

    def fuse(self, states: Tensor, mask: Tensor, kv: list[KeyValue], video_index: Tensor | None = None) -> Tensor:
        """Text states that have read a video: [P, L, H] -> [P, L, H]; P pairs.

        Args:
            states: [P, L, H] from `encode_text`, one row a pair.
            mask: [P, L], of the text.
            kv: from `video_kv`.
            video_index: int [P], which video pair p reads; None: video p (or the only one, read without a copy).
        """
        return self.text_encoder.fuse(states, mask, kv, video_index)

    def fuse_at(
        self, states: Tensor, mask: Tensor, kv: list[KeyValue], wanted: Tensor, video_index: Tensor | None = None
    ) -> Tensor:
        """Fused states of the tokens `wanted` (bool [P, L]) alone, [W, H], padding not computed; the rest as `fuse`."""
        return self.text_encoder.fuse_at(states, mask, kv, video_index, wanted)

    def match(self, states: Tensor, mask: Tensor, kv: list[KeyValue], video_index: Tensor | None = None) -> Tensor:
        """Matching logits [P, 2], class 1 = match; arguments as in `fuse`."""
        return self.itm_head(self.fuse(states, mask, kv, video_index)[:, 0])

    def match_unpadded(
        self, states: Tensor, mask: Tensor, kv: list[KeyValue], video_index: Tensor | None = None
    ) -> Tensor:
        """The same; neither padding nor what the head does not read is computed."""
        first = torch.zeros_like(mask, dtype=torch.bool)
        first[:, 0] = True
        return self.itm_head(self.fuse_at(states, mask, kv, first, video_index))

    def mlm_logits(self, states: Tensor) -> Tensor:
        """Fused states [..., H] -> [..., vocabulary]."""
        return self.text_encoder.mlm_logits(states)


def build_s2(size: str, vocab_size: int | None, seed: int, **overrides: Any) -> S2Model:
    """A new s2 model of a size, weights from `seed`.

    Args:
        size: a file of ivcore/models/sizes.
        vocab_size: of the tokenizer; None takes the published one (tiny has none).
        seed: of the initial weights.
        overrides: numbers by name, e.g. num_frames=4, drop_path=0.1, embed_dim=64.

    Raises:
        UserError: for an unknown size or number, or numbers that do not fit each other.
    """
    return S2Model(s2_config(size, vocab_size, seed, **overrides))
