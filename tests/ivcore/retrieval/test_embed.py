"""One text, one vector: whatever texts come with it, in every text tower."""

import pytest
import torch

from ivcore.models import build_clip, build_s2
from ivcore.models.clip import ClipModel
from ivcore.models.config import clip_config, with_bert
from ivcore.retrieval.embed import Encoder

LENGTH, VOCABULARY = 20, 60
MOBILE = {
    "kind": "mobileclip",
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": LENGTH,
    "causal": True,
}


def mobile(causal):
    config = clip_config("tiny", VOCABULARY)
    config.text = {**MOBILE, "causal": causal}
    return ClipModel(config)


TOWERS = {
    "s2": lambda: build_s2("tiny", VOCABULARY, 0),
    "llama": lambda: build_clip("tiny", VOCABULARY, 0),
    "bert": lambda: ClipModel(with_bert(clip_config("tiny", VOCABULARY))),
    "mobileclip": lambda: mobile(True),
    "mobileclip, not causal": lambda: mobile(False),
}


class Numbers:
    """Texts are numbers; ids padded to the longest of the batch, as few tokenizers would."""

    def encode(self, captions, max_len):
        lists = [[1, *map(int, caption.split()), VOCABULARY - 1] for caption in captions]
        longest = max(map(len, lists))
        ids = torch.tensor([[*some, *[0] * (longest - len(some))] for some in lists])
        mask = torch.tensor([[1] * len(some) + [0] * (longest - len(some)) for some in lists])
        return ids, mask


@pytest.mark.parametrize("tower", TOWERS)
def test_a_text_has_one_vector_in_every_batch(tower):
    draw = torch.Generator().manual_seed(0)
    sizes = torch.randint(1, LENGTH - 2, (64,), generator=draw).tolist()
    texts = [" ".join(map(str, torch.randint(3, VOCABULARY - 2, (n,), generator=draw).tolist())) for n in sizes]
    model = TOWERS[tower]().eval()
    encoder = Encoder(model, Numbers(), LENGTH, torch.device("cpu"), torch.float32)
    alone = torch.cat([encoder.texts([text]).embedding for text in texts])
    assert float((alone @ alone.T).fill_diagonal_(0).max()) < 1 - 1e-4  # 64 vectors, not one
    for size in (7, 64):
        together = torch.cat([encoder.texts(texts[i : i + size]).embedding for i in range(0, 64, size)])
        assert torch.allclose(together, alone, atol=1e-6)
