"""s2's text layers as clip's text tower: BERT, read at [CLS], then a bare matrix. No published clip has it.

It is there to ask whether what clip does with languages and long texts comes from its tower or from what the tower is
taught (docs/freezing.md). The layers are transformers' own, as in ivcore/models/text.py.
Shapes: B texts, L tokens, H hidden, E embedding.
"""

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from ivcore.models.shapes import ClipBertShape


class ClipBertTower(nn.Module):
    """Ids with [CLS] in front, padded on the right with 0 -> [B, E]."""

    def __init__(self, shape: ClipBertShape, embed_dim: int) -> None:
        super().__init__()
        self.shape = shape
        config = BertConfig(
            vocab_size=shape.vocab_size,
            hidden_size=shape.hidden_size,
            intermediate_size=shape.intermediate_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            max_position_embeddings=shape.max_position_embeddings,
            hidden_dropout_prob=shape.dropout,
            attention_probs_dropout_prob=shape.dropout,
            layer_norm_eps=1e-12,
            hidden_act="gelu",  # exact, not the tanh form
            pad_token_id=0,
            attn_implementation="sdpa",  # type: ignore[call-arg]
        )
        self.bert = BertModel(config, add_pooling_layer=False)
        self.text_projection = nn.Parameter(torch.zeros(shape.hidden_size, embed_dim))

    def forward(self, ids: Tensor) -> Tensor:
        """int [B, L] -> [B, E], not normalised."""
        return self.project(self.read(ids))

    def read(self, ids: Tensor) -> Tensor:
        """The last state of [CLS], before the projection: int [B, L] -> [B, H]."""
        return self.bert(input_ids=ids, attention_mask=(ids > 0).long()).last_hidden_state[:, 0]

    def project(self, read: Tensor) -> Tensor:
        """[B, H] -> [B, E]."""
        return read @ self.text_projection
