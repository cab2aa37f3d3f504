"""The text and fusion tower: keys and values once a video, padding, positions; clip's towers beside it."""

import pytest
import torch
from torch import nn

from ivcore.models import S2Model, build_clip, build_s2
from ivcore.models.dimensions import MobileClipShape
from ivcore.models.mobileclip import MobileClipTower


@pytest.fixture(scope="module")
def s2() -> S2Model:
    model = build_s2("tiny", 50, seed=0).eval()
    with torch.no_grad():
        for p in model.parameters():  # away from the start: biases and norms count
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.05)
    return model


def texts(num: int = 4, length: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(1, 50, (num, length), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    for row in range(num):
        mask[row, 3 + row :] = 0
    return ids * mask, mask


def test_keys_once_a_video_equal_keys_once_a_pair(s2: S2Model) -> None:
    ids, mask = texts()
    states = s2.encode_text(ids, mask)
    tokens = torch.randn(3, 9, 96, generator=torch.Generator().manual_seed(1))
    index = torch.tensor([2, 0, 0, 1])
    once = s2.fuse(states, mask, s2.video_kv(tokens), index)
    a_pair = s2.fuse(states, mask, s2.video_kv(tokens[index]))
    torch.testing.assert_close(once, a_pair, rtol=1e-5, atol=1e-6)
    for pair, video in enumerate(index):  # and one video at a time, read by all texts without a copy
        alone = s2.fuse(states, mask, s2.video_kv(tokens[video][None]))
        torch.testing.assert_close(once[pair], alone[pair], rtol=1e-5, atol=1e-6)


def test_fusion_layer_is_transformers_own(s2: S2Model) -> None:
    """The same numbers through BertLayer's own forward, the video given as encoder states."""
    ids, mask = texts()
    states, tokens = s2.encode_text(ids, mask), torch.randn(4, 9, 96, generator=torch.Generator().manual_seed(2))
    bias = ((1.0 - mask) * -10000.0)[:, None, None, :]
    expected = states
    for layer in s2.text_encoder.bert.layers()[2:]:
        layer.is_decoder = True
        expected = layer(expected, bias, tokens)
        layer.is_decoder = False
    torch.testing.assert_close(s2.fuse(states, mask, s2.video_kv(tokens)), expected, rtol=1e-5, atol=1e-6)


def test_padding_is_not_read(s2: S2Model) -> None:
    ids, mask = texts()
    longer, longer_mask = (nn.functional.pad(x, (0, 5)) for x in (ids, mask))
    kv = s2.video_kv(torch.ones(4, 9, 96))
    short, long = s2.encode_text(ids, mask), s2.encode_text(longer, longer_mask)
    torch.testing.assert_close(short[mask > 0], long[:, :7][mask > 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(s2.match(short, mask, kv), s2.match(long, longer_mask, kv), rtol=1e-5, atol=1e-6)


def test_what_does_not_fit(s2: S2Model) -> None:
    ids, mask = texts()
    states = s2.encode_text(ids, mask)
    with pytest.raises(ValueError, match="64"):
        s2.encode_text(torch.ones(1, 65, dtype=torch.long), torch.ones(1, 65))
    with pytest.raises(ValueError, match="mask"):
        s2.encode_text(ids, mask[:, 1:])
    with pytest.raises(ValueError, match="which video"):
        s2.fuse(states, mask, s2.video_kv(torch.ones(3, 9, 96)))


def test_six_billion_reads_the_video_through_a_projection() -> None:
    model = build_s2("tiny", 50, seed=0, fusion_width=32).eval()
    tokens = torch.randn(2, 9, 96)
    k, _ = model.video_kv(tokens)[0]
    assert k.shape == (2, 3, 9, 32)
    assert model.text_encoder.bert.layers()[2].crossattention.self.key.in_features == 32


def test_llama_reads_the_end_and_not_the_padding() -> None:
    model = build_clip("tiny", 50, seed=0).eval()
    ids = torch.tensor([[1, 5, 9, 2, 0, 0], [1, 7, 8, 9, 4, 2]])
    out = model.encode_text(ids)
    torch.testing.assert_close(out[0], model.encode_text(ids[:1, :4])[0], rtol=1e-5, atol=1e-6)
    swapped = ids.clone()
    swapped[0, 1], swapped[0, 2] = 9, 5
    assert (model.encode_text(swapped)[0] - out[0]).abs().max() > 1e-4  # word order counts
    with pytest.raises(ValueError, match="160"):
        model.encode_text(torch.ones(1, 161, dtype=torch.long))


def test_mobileclip_reads_the_highest_id_and_nothing_behind_it() -> None:
    shape = MobileClipShape(
        vocab_size=20,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=6,
    )
    tower = MobileClipTower(shape, 8)
    with torch.no_grad():
        for p in tower.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.3)
    ids = torch.tensor([[18, 3, 19, 0, 0, 0]])
    behind = ids.clone()
    behind[0, 3:] = 5
    assert torch.equal(tower(ids), tower(behind))
    assert not torch.equal(tower(ids), tower(torch.tensor([[18, 4, 19, 0, 0, 0]])))
