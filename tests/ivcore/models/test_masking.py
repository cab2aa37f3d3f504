"""Counts, class token, spread and seed of the video token mask."""

import pytest
import torch

from ivcore.errors import UserError
from ivcore.models.masking import random_drop_mask


def mask(num: int, tokens: int, ratio: float, seed: int = 0) -> torch.Tensor:
    return random_drop_mask(num, tokens, ratio, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("tokens", "ratio", "dropped"), [(1024, 0.8, 819), (256, 0.5, 128), (2048, 0.8, 1638), (64, 0.0, 0)]
)
def test_counts(tokens: int, ratio: float, dropped: int) -> None:
    found = mask(3, tokens, ratio)
    assert found.shape == (3, 1 + tokens) and found.dtype == torch.bool
    assert found.sum(1).tolist() == [dropped] * 3 and not found[:, 0].any()


def test_every_patch_has_the_same_chance() -> None:
    rate = mask(4000, 20, 0.5)[:, 1:].float().mean(0)
    assert rate.min() > 0.45 and rate.max() < 0.55


def test_seed_decides() -> None:
    assert torch.equal(mask(2, 64, 0.8), mask(2, 64, 0.8))
    assert not torch.equal(mask(2, 64, 0.8), mask(2, 64, 0.8, seed=1))


def test_ratio_is_a_share() -> None:
    with pytest.raises(UserError, match=r"1\.0"):
        mask(1, 4, 1.0)
