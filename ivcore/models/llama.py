"""clip's large text tower: a LLaMA decoder stack, read at the last token, then a bare matrix.

Shapes: B texts, L tokens, H hidden, E embedding.
The stack is transformers' LlamaModel; upstream's LoRA branches are merged at load (ivcore/models/convert.py).
Source: InternVideo2 multi_modality, models/backbones/internvideo2/internvl_clip_vision.py and internvideo2_clip.py.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from ivcore.models.dimensions import LlamaShape


class LlamaTower(nn.Module):
    """Ids padded on the right with 0 -> [B, E]; an id 0 counts as padding wherever it stands, as upstream."""

    def __init__(self, shape: LlamaShape, embed_dim: int) -> None:
        super().__init__()
        self.shape = shape
        config = LlamaConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            max_position_embeddings=shape.max_position_embeddings,
            rms_norm_eps=shape.rms_norm_eps,
            hidden_act="silu",
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            use_cache=False,
            tie_word_embeddings=False,
            attn_implementation="sdpa",  # type: ignore[call-arg]
        )
        self.transformer = LlamaModel(config)
        if shape.checkpoint_layers:
            self.transformer.gradient_checkpointing_enable({"use_reentrant": False})
        self.text_projection = nn.Parameter(torch.zeros(shape.hidden_size, embed_dim))

    def forward(self, ids: Tensor) -> Tensor:
        """int [B, L] -> [B, E], not normalised: the last state of the position before the padding, projected."""
        return self.project(self.read(ids))

    def read(self, ids: Tensor) -> Tensor:
        """int [B, L] -> [B, H], before the projection."""
        states = self.states(ids)  # [B, L, H]
        last = self.pool_index(ids)  # [B]
        return states[torch.arange(len(ids), device=ids.device), last]

    def project(self, read: Tensor) -> Tensor:
        """[B, H] -> [B, E]."""
        return read @ self.text_projection

    def states(self, ids: Tensor) -> Tensor:
        """int [B, L] -> [B, L, H] after the final norm; causal, ids 0 are not read.

        Raises:
            ValueError: if the text is longer than the tower allows.
        """
        if ids.ndim != 2 or ids.shape[1] > self.shape.max_position_embeddings:
            raise ValueError(f"ids are [B, L] with L <= {self.shape.max_position_embeddings}, got {list(ids.shape)}")
        return self.transformer(input_ids=ids, attention_mask=(ids > 0).long()).last_hidden_state

    @staticmethod
    def pool_index(ids: Tensor) -> Tensor:
        """int [B]: (number of ids above 0) - 1, the end-of-text when the padding is on the right."""
        return (ids > 0).sum(dim=1) - 1

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> "LlamaTower":
        # A cast to bf16 would also round the rotary frequencies, and with them every angle: write them anew.
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch gives it no types
        rotary = self.transformer.rotary_emb
        if rotary.inv_freq.device.type != "meta":
            exact, _ = rotary.compute_default_rope_parameters(self.transformer.config)
            exact = exact.to(rotary.inv_freq.device)
            rotary.register_buffer("inv_freq", exact, persistent=False)
            rotary.register_buffer("original_inv_freq", exact.clone(), persistent=False)
        return self
