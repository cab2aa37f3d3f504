"""Gradient caching against the whole batch held in memory at once."""

import pytest
import torch
from torch import Tensor, nn

from ivcore.losses.vtc import vtc_loss
from ivcore.models.clip import build_clip
from ivcore.models.s2 import build_s2
from ivcore.train.gradient_cache import cached_backward

B = 12
SIZES = (5, 4, 3)


class Towers(nn.Module):
    """Two towers with dropout and a temperature."""

    def __init__(self) -> None:
        super().__init__()
        self.video = nn.Sequential(nn.Linear(6, 32), nn.GELU(), nn.Dropout(0.3), nn.Linear(32, 8))
        self.text = nn.Sequential(nn.Linear(4, 32), nn.GELU(), nn.Dropout(0.3), nn.Linear(32, 8))
        self.head = nn.Linear(8, 1)
        self.temp = nn.Parameter(torch.tensor(0.2))


@pytest.fixture
def towers() -> Towers:
    torch.manual_seed(0)
    return Towers().train()


def batch() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return torch.randn(B, 6, generator=draw), torch.randn(B, 4, generator=draw)


def chunks() -> list[tuple[Tensor, Tensor]]:
    return list(zip(*(x.split(SIZES) for x in batch()), strict=True))


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def contrast(model: nn.Module):
    return lambda video, text: {"vtc": vtc_loss(video, text, model.temp, torch.arange(len(video)))}


def vtc(losses):
    return losses["vtc"]


def seeded(encode, parts):
    """The encoder and its chunks, by number: called again it draws what it drew before, as in training."""

    def again(number):
        torch.manual_seed(number)
        return encode(parts[number])

    return again, range(len(parts))


def assert_same(ours: dict[str, Tensor], plain: dict[str, Tensor]) -> None:
    assert ours.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_dropout_temperature_and_uneven_chunks(towers):
    encode, numbers = seeded(lambda chunk: ((towers.video(chunk[0]), towers.text(chunk[1])), None), chunks())
    ours = cached_backward(encode, numbers, contrast(towers), vtc)
    ours_gradients = gradients(towers)

    vectors = [encode(number)[0] for number in numbers]  # the obvious form: every chunk's graph is kept
    plain = contrast(towers)(*(torch.cat(kind) for kind in zip(*vectors, strict=True)))["vtc"]
    plain.backward()
    torch.testing.assert_close(ours["vtc"], plain.detach(), rtol=1e-6, atol=0)
    assert "temp" in ours_gradients
    assert_same(ours_gradients, gradients(towers))


def test_other_draws_in_the_second_pass_would_show(towers):
    def encode(chunk):
        return (towers.video(chunk[0]), towers.text(chunk[1])), None

    cached_backward(*seeded(encode, chunks()), contrast(towers), vtc)
    right = gradients(towers)
    torch.manual_seed(3)
    cached_backward(encode, chunks(), contrast(towers), vtc)
    assert (gradients(towers)["video.0.weight"] - right["video.0.weight"]).abs().max() > 1e-3


def test_losses_of_a_chunk_are_added_with_their_weight(towers):
    def encode(chunk):
        hidden = towers.video(chunk[0] * torch.rand(len(chunk[0]), 1))
        return (hidden, towers.text(chunk[1])), hidden

    def local(number, vectors, hidden):
        assert vectors[0] is hidden and len(hidden) == SIZES[number]
        return {"match": towers.head(hidden).pow(2).mean() * len(hidden) / B}

    def total(losses):
        weights = {"vtc": 0.5, "match": 2.0}
        return sum(weights[name] * loss for name, loss in losses.items())

    towers.eval()
    encode, numbers = seeded(encode, chunks())
    ours = cached_backward(encode, numbers, contrast(towers), total, local)
    ours_gradients = gradients(towers)
    vectors = [encode(number)[0] for number in numbers]
    video, text = (torch.cat(kind) for kind in zip(*vectors, strict=True))
    plain = {**contrast(towers)(video, text), "match": towers.head(video).pow(2).mean()}
    total(plain).backward()
    for name, value in plain.items():
        torch.testing.assert_close(ours[name], value.detach(), rtol=1e-6, atol=0)
    assert_same(ours_gradients, gradients(towers))


def test_a_frozen_side_and_an_unread_one(towers):
    towers.text.requires_grad_(False)

    def encode(chunk):
        video = towers.video.eval()(chunk[0])
        return (video, towers.text.eval()(chunk[1]), video * 2), None

    def loss(video, text, unread):
        return contrast(towers)(video, text)

    cached_backward(encode, chunks(), loss, vtc)
    found = gradients(towers)
    loss(*encode(batch())[0])["vtc"].backward()
    assert_same(found, gradients(towers))
    assert not any(name.startswith("text.") for name in found)


def test_autocast_keeps_the_gradients_of_the_weights(towers):
    towers.eval()

    def encode(chunk):
        with torch.autocast("cpu", torch.bfloat16):
            return (towers.video(chunk[0]), towers.text(chunk[1])), None

    with torch.autocast("cpu", torch.bfloat16):  # also where the caller's own context is around it
        cached_backward(encode, chunks(), contrast(towers), vtc)
    ours = gradients(towers)
    contrast(towers)(*encode(batch())[0])["vtc"].backward()
    plain = gradients(towers)
    assert ours.keys() == plain.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(ours[name], gradient, rtol=0.05, atol=0.01 * gradient.abs().max().item())


@pytest.mark.parametrize("size", [1, 4, 6])
def test_clip_equals_the_whole_batch(size):
    model = build_clip("tiny", 100, seed=0).train()
    draw = torch.Generator().manual_seed(5)
    video, ids = torch.randn(6, 8, 3, 32, 32, generator=draw), torch.randint(3, 100, (6, 9), generator=draw)

    def encode(chunk):
        return (model.encode_video(chunk[0]), model.encode_text(chunk[1])), None

    parts = list(zip(video.split(size), ids.split(size), strict=True))
    ours = cached_backward(encode, parts, contrast(model), vtc)
    found = gradients(model)
    plain = contrast(model)(*encode((video, ids))[0])["vtc"]
    plain.backward()
    torch.testing.assert_close(ours["vtc"], plain.detach(), rtol=1e-5, atol=0)
    assert_same(found, gradients(model))


def test_s2_with_dropout_and_stochastic_depth():
    model = build_s2("tiny", 100, seed=0, dropout=0.2, drop_path=0.3).train()
    draw = torch.Generator().manual_seed(5)
    video, ids = torch.randn(6, 8, 3, 32, 32, generator=draw), torch.randint(3, 100, (6, 9), generator=draw)

    def encode(chunk):
        video, ids = chunk
        states = model.encode_text(ids, torch.ones_like(ids))
        return (model.project_video(model.encode_video(video)[1]), model.project_text(states)), None

    parts = list(zip(video.split(2), ids.split(2), strict=True))
    encode, numbers = seeded(encode, parts)
    cached_backward(encode, numbers, contrast(model), vtc)
    found = gradients(model)
    vectors = [encode(number)[0] for number in numbers]
    contrast(model)(*(torch.cat(kind) for kind in zip(*vectors, strict=True)))["vtc"].backward()
    assert_same(found, gradients(model))
