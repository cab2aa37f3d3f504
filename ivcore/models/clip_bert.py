"""s2's text layers as clip's text tower: BERT, read at [CLS], then a bare matrix. No published clip has it.

It is there to ask whether what clip does with languages and long texts comes from its tower or from what the tower is
taught (docs/freezing.md). The layers are transformers' own, as in ivcore/models/text.py.
Shapes: B texts, L tokens, H hidden, E embedding.
"""

import torch
from torch import Tensor, nn
from transformers import BertModel

from ivcore.models.dimensions import PlainBertShape
from ivcore.models.text import bert_config


class ClipBertTower(nn.Module):
    """Ids with [CLS] in front, padded on the right with 0 -> [B, E]."""

    def __init__(self, shape: PlainBertShape, embed_dim: int) -> None:
        super().__init__()
        self.shape = shape
        self.bert = BertModel(bert_config(shape), add_pooling_layer=False)
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
