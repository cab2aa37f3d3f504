"""Texts without padding, and videos read where they lie, against padded rows and keys copied for every pair."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ivcore.losses.mlm import mlm_loss
from ivcore.losses.vtm import pairs, vtm_loss
from ivcore.models.s2 import S2Model, build_s2
from ivcore.models.text_unpadded import layout

LENGTHS = (3, 9, 1, 12, 5)  # of B = 5 texts


@pytest.fixture(params=[False, True], ids=["plain", "checkpointed"])
def model(request) -> S2Model:
    return build_s2("tiny", 100, seed=0, checkpoint_layers=request.param).train()  # tiny has no dropout


def texts(padded: int = 12) -> tuple[Tensor, Tensor]:
    ids = torch.randint(5, 100, (len(LENGTHS), 12), generator=torch.Generator().manual_seed(1))
    ids = F.pad(ids, (0, padded - 12))
    mask = (torch.arange(padded) < torch.tensor(LENGTHS)[:, None]).long()
    return ids * mask, mask


def videos(num: int = 5) -> Tensor:
    return torch.randn(num, 65, 96, generator=torch.Generator().manual_seed(2)) * 3


def gradients(model: S2Model, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def close(ours: dict[str, Tensor], plain: dict[str, Tensor]) -> None:
    assert ours.keys() == plain.keys()
    for name, expected in plain.items():
        torch.testing.assert_close(ours[name], expected, rtol=1e-4, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_layout_keeps_every_token_once_and_in_order():
    group = torch.randint(0, 7, (40,), generator=torch.Generator().manual_seed(0))
    where, x = layout(group, 9), torch.randn(40, 12)
    rows = where.spread(x, 3)  # [9, 3, length, 4]
    assert rows.shape == (9, 3, int(torch.bincount(group).max()), 4)
    for g in range(9):
        own = x[group == g]
        assert torch.equal(rows[g].transpose(0, 1).flatten(1)[: len(own)], own)
        assert not rows[g, :, len(own) :].any()
        assert where.readable()[g].sum() == len(own)
    assert torch.equal(where.collect(rows), x)


def test_text_alone(model):
    ids, mask = texts()
    ours, plain = model.encode_text(ids, mask, unpadded=True), model.encode_text(ids, mask)
    torch.testing.assert_close(ours, plain * mask[..., None], rtol=1e-5, atol=1e-5)
    pull = torch.randn(ours.shape, generator=torch.Generator().manual_seed(3))
    close(gradients(model, (ours * pull).mean()), gradients(model, (plain * mask[..., None] * pull).mean()))


@pytest.mark.parametrize("index", [None, [0, 0, 4, 0, 2], [3] * 5], ids=["own", "skewed", "one"])
def test_fused_tokens_that_are_wanted(model, index):
    ids, mask = texts()
    index = None if index is None else torch.tensor(index)
    wanted = mask.bool() & (torch.rand(mask.shape, generator=torch.Generator().manual_seed(4)) < 0.5)
    states, kv = model.encode_text(ids, mask), model.video_kv(videos())
    ours = model.fuse_at(states, mask, kv, wanted, index)
    torch.testing.assert_close(ours, model.fuse(states, mask, kv, index)[wanted], rtol=1e-5, atol=1e-5)


def test_no_token_is_wanted(model):
    ids, mask = texts()
    states, kv = model.encode_text(ids, mask), model.video_kv(videos())
    fused = model.fuse_at(states, mask, kv, torch.zeros_like(mask, dtype=torch.bool))
    assert fused.shape == (0, 96)
    none = torch.zeros(1, 0, dtype=torch.int64)
    found = gradients(model, mlm_loss(model.mlm_logits(fused)[None], none))
    assert all(torch.isfinite(g).all() for g in found.values())


def test_one_video_for_all_texts(model):
    ids, mask = texts()
    states, kv = model.encode_text(ids, mask), model.video_kv(videos(1))
    plain = model.itm_head(model.fuse(states, mask, kv)[:, 0])
    torch.testing.assert_close(model.match_unpadded(states, mask, kv), plain, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="which video"):
        model.match_unpadded(states, mask, model.video_kv(videos(2)))


def test_matching_and_masked_words_equal_every_pair_alone_and_padded(model):
    neg_video, neg_text = torch.tensor([3, 3, 3, 1, 3]), torch.tensor([1, 0, 0, 2, 2])
    labels = torch.full((5, 12), -100)
    labels[0, 1], labels[3, 5:9] = 7, 11

    def ours() -> Tensor:
        ids, mask = texts()
        states, kv = model.encode_text(ids, mask, unpadded=True), model.video_kv(videos())
        fused = model.fuse_at(states, mask, kv, labels != -100)
        words = mlm_loss(model.mlm_logits(fused)[None], labels[labels != -100][None])
        return vtm_loss(model, states, mask, kv, neg_video, neg_text)[0] + words

    def obvious() -> Tensor:
        ids, mask = texts(padded=32)
        states, (text, video) = model.encode_text(ids, mask), pairs(neg_video, neg_text)
        logits = [
            model.itm_head(model.fuse(states[t : t + 1], mask[t : t + 1], model.video_kv(videos()[v : v + 1]))[:, 0])
            for t, v in zip(text.tolist(), video.tolist(), strict=True)
        ]
        matched = F.cross_entropy(torch.cat(logits), (torch.arange(15) < 5).long())
        fused = model.fuse(states, mask, model.video_kv(videos()))
        return matched + mlm_loss(model.mlm_logits(fused), F.pad(labels, (0, 20), value=-100))

    one, other = ours(), obvious()
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    close(gradients(model, one), gradients(model, other))


def test_the_same_bytes_on_two_threads():
    model, found = build_s2("tiny", 100, seed=0).train(), []
    ids, mask = (x.repeat(8, 1) for x in texts())
    index = torch.randint(0, 5, (40,), generator=torch.Generator().manual_seed(6))
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    try:
        for _ in range(6):
            states = model.encode_text(ids, mask, unpadded=True)
            found.append(
                gradients(model, model.match_unpadded(states, mask, model.video_kv(videos()), index).square().sum())
            )
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(1)
    assert all(torch.equal(g, found[0][n]) for other in found for n, g in other.items())
