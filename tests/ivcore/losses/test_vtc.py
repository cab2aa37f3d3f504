"""Contrast: worked by hand, against the obvious version, shared ids, what is left out, precision."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ivcore.losses.vtc import similarity, vtc_loss


def sides(num: int = 6, width: int = 5) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    return torch.randn(num, width, generator=g), torch.randn(num, width, generator=g)


def obvious(video: Tensor, text: Tensor, temp: float, ids: list[int], exclude: Tensor | None = None) -> float:
    """Row by row, word by word."""
    num = len(ids)
    total = 0.0
    for left, right, turned in ((video, text, False), (text, video, True)):
        for i in range(num):
            scores, positives = [], []
            for j in range(num):
                out = exclude is not None and i != j and bool(exclude[j, i] if turned else exclude[i, j])
                if not out:
                    scores.append(float(left[i] @ right[j] / left[i].norm() / right[j].norm() / temp))
                    positives.append(ids[i] == ids[j])
            log_sum = math.log(sum(math.exp(s) for s in scores))
            hits = [s - log_sum for s, positive in zip(scores, positives, strict=True) if positive]
            total -= sum(hits) / len(hits) / num
    return total / 2


def test_by_hand() -> None:
    video = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 0.0]])
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    ids = torch.tensor([4, 5, 4])
    # temp 0.5: scores are 2 between equals, else 0. Rows 0 and 2: log(2e^2 + 1) - 2. Row 1: log(e^2 + 2) - 2.
    row0, row1 = math.log(2 * math.exp(2) + 1) - 2, math.log(math.exp(2) + 2) - 2
    assert vtc_loss(video, text, 0.5, ids).item() == pytest.approx((2 * row0 + row1) / 3, abs=1e-6)


@pytest.mark.parametrize("ids", [[0, 1, 2, 3, 4, 5], [0, 1, 0, 2, 2, 2], [7] * 6])
@pytest.mark.parametrize("excluding", [False, True])
def test_is_the_obvious_version(ids: list[int], excluding: bool) -> None:
    video, text = sides()
    exclude = torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) < 0.4 if excluding else None
    found = vtc_loss(video, text, torch.tensor(0.3), torch.tensor(ids), exclude)
    assert found.item() == pytest.approx(obvious(video, text, 0.3, ids, exclude), abs=1e-5)


def test_unique_ids_are_plain_cross_entropy() -> None:
    video, text = sides()
    sim = similarity(video, text, 0.07)
    expected = (F.cross_entropy(sim, torch.arange(6)) + F.cross_entropy(sim.T, torch.arange(6))) / 2
    torch.testing.assert_close(vtc_loss(video, text, 0.07, torch.arange(6)), expected)


def test_left_out_pairs_get_no_gradient_and_the_diagonal_stays() -> None:
    video, text = sides(2)
    video.requires_grad_(True)
    everything = torch.ones(2, 2, dtype=torch.bool)
    loss = vtc_loss(video, text, 0.1, torch.arange(2), everything)  # each row alone with its positive
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(video.grad, torch.zeros(2, 5))


def test_half_precision_comes_back_in_float32() -> None:
    video, text = sides()
    exact = vtc_loss(video, text, 0.07, torch.arange(6))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = vtc_loss(video.bfloat16(), text.bfloat16(), torch.tensor(0.07), torch.arange(6))
    assert mixed.dtype == torch.float32 and mixed.item() == pytest.approx(exact.item(), rel=0.05)
    assert vtc_loss(1e3 * video, 1e-3 * text, 0.07, torch.arange(6)).item() == pytest.approx(exact.item(), rel=1e-5)


def test_segments_and_prompts_average_similarities() -> None:
    video, text = torch.randn(3, 2, 5), torch.randn(4, 7, 5)
    found = similarity(video, text, 1.0)
    expected = torch.stack([torch.stack([similarity(v, t, 1.0).mean() for t in text]) for v in video])
    torch.testing.assert_close(found, expected)


def test_sides_must_match() -> None:
    video, text = sides()
    with pytest.raises(ValueError, match="6, 5, 6"):
        vtc_loss(video, text[:5], 0.07, torch.arange(6))
