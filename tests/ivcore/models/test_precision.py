"""How far bfloat16 may be from float32, on the CPU and (marked gpu) on CUDA; what stays float32 whatever comes in."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from ivcore.losses.mlm import mlm_loss
from ivcore.losses.vtc import similarity, vtc_loss
from ivcore.losses.vtm import vtm_loss
from ivcore.models import ClipModel, S2Model, build_clip, build_s2
from tests.devices import DEVICES

IDS = torch.tensor([[1, 5, 9, 2, 0, 0], [1, 7, 8, 9, 4, 2], [1, 3, 3, 2, 0, 0], [1, 40, 41, 42, 43, 2]])
COSINE = 0.9995  # of every vector with its float32 self; worst seen on the CPU: 0.9998
LARGEST = 0.03  # largest difference over the largest entry, tokens and logits included; worst seen: 0.018


def outputs(model: S2Model | ClipModel, device: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shape = model.vision_encoder.shape
    video = torch.randn(4, shape.num_frames, 3, shape.image_size, shape.image_size, generator=generator).to(device)
    ids = IDS.to(device)
    with torch.no_grad():
        if isinstance(model, ClipModel):
            return {"video": model.encode_video(video), "text": model.encode_text(ids)}
        tokens, pooled = model.encode_video(video)
        states = model.encode_text(ids, ids > 0)
        logits = model.match(states, ids > 0, model.video_kv(tokens), torch.tensor([1, 0, 3, 2], device=device))
        vectors = {"video": model.project_video(pooled), "text": model.project_text(states)}
        return {**vectors, "tokens": tokens, "match": logits, "words": model.mlm_logits(states)}


def build(form: str, size: str) -> S2Model | ClipModel:
    """Weights that let every branch speak: the start's layer scale of 1e-5 would hide the blocks."""
    less = {"depth": 4, "num_hidden_layers": 4, "layer_scale_init": 1.0} if size == "S14" else {}
    fusion = {"fusion_layer": 2} if size == "S14" and form == "s2" else {}
    model = (build_s2 if form == "s2" else build_clip)(size, 300, seed=0, **less, **fusion)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name != "temp":
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.02)
    return model.eval()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", ["tiny", "S14"])
@pytest.mark.parametrize("form", ["s2", "clip"])
@pytest.mark.parametrize("how", ["autocast", "pure"])
def test_bfloat16_is_bounded_by_float32(form: str, size: str, how: str, device: str) -> None:
    model = build(form, size).to(device)
    exact = outputs(model, device)
    if how == "pure":
        model.bfloat16()
    with torch.autocast(device, torch.bfloat16) if how == "autocast" else nullcontext():
        rounded = outputs(model, device)
    for name, expected in exact.items():
        found = rounded[name].float()
        assert torch.isfinite(found).all(), name
        worst = (found - expected).abs().max() / expected.abs().max()
        assert worst <= LARGEST, f"{name}: {worst:.4f}"
        if name in ("video", "text"):
            cosine = torch.cosine_similarity(found, expected, dim=-1).min()
            assert cosine >= COSINE, f"{name}: {cosine:.5f}"


class Matcher:
    """Answers in bfloat16, as a pure bfloat16 model does."""

    def match_unpadded(self, states: Tensor, *_: object) -> Tensor:
        return states[:, 0, :2]


@pytest.mark.parametrize("device", DEVICES)
def test_similarities_and_losses_are_float32_whatever_comes_in(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    video, text = (torch.randn(6, 32, generator=generator).to(device) for _ in "ab")
    ids = torch.arange(6, device=device)
    half_video, half_text = video.bfloat16(), text.bfloat16()
    for scope in (nullcontext(), torch.autocast(device, torch.bfloat16)):
        with scope:
            sim = similarity(half_video, half_text, 0.07)
            loss = vtc_loss(half_video, half_text, torch.tensor(0.07, device=device), ids)
            match, logits = vtm_loss(
                Matcher(), half_text[:, None], torch.ones(6, 1, device=device), [], ids.roll(1), ids.roll(1)
            )
            words = mlm_loss(half_video[None], ids[None])
        assert {t.dtype for t in (sim, loss, match, logits, words)} == {torch.float32}
        expected = similarity(half_video.float(), half_text.float(), 0.07)
        torch.testing.assert_close(sim, expected, rtol=1e-5, atol=1e-5)  # rounded at the entrance, nowhere after


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("form", ["s2", "clip"])
def test_gradients_of_autocast_are_bounded(form: str, device: str) -> None:
    model = build(form, "tiny").to(device)
    shape = model.vision_encoder.shape
    video = torch.randn(4, shape.num_frames, 3, 32, 32, generator=torch.Generator().manual_seed(1)).to(device)
    ids, found = IDS.to(device), []
    for scope in (nullcontext(), torch.autocast(device, torch.bfloat16)):
        model.zero_grad()
        with scope:
            if isinstance(model, ClipModel):
                pair = model.encode_video(video), model.encode_text(ids)
            else:
                pooled = model.encode_video(video)[1]
                pair = model.project_video(pooled), model.project_text(model.encode_text(ids, ids > 0))
            vtc_loss(*pair, model.temp, torch.arange(4, device=device)).backward()
        grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        assert all(g.dtype == torch.float32 for g in grads.values())
        found.append(torch.cat([g.flatten() for g in grads.values()]))
    exact, rounded = found
    assert torch.cosine_similarity(exact, rounded, dim=0) >= 0.99
    assert (exact.norm() - rounded.norm()).abs() / exact.norm() <= 0.05
