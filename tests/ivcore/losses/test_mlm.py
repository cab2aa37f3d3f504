"""Masked language: rates, what is never chosen, labels, the empty case."""

import pytest
import torch
from torch import Tensor

from ivcore.losses.mlm import NO_TARGET, mlm_corrupt, mlm_loss

MASK, CLS, PAD, VOCAB = 103, 101, 0, 1000


def corrupt(probability: float = 0.5, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    ids = torch.randint(200, VOCAB, (400, 60), generator=g)
    ids[:, 0], ids[:, 40:] = CLS, PAD
    return ids, *mlm_corrupt(ids, ids != PAD, VOCAB, MASK, (PAD, CLS), probability, g)


def test_rates() -> None:
    ids, corrupted, labels = corrupt()
    chosen = labels != -100
    assert chosen[:, 1:40].float().mean().item() == pytest.approx(0.5, abs=0.01)
    hidden = corrupted[chosen] == MASK
    stayed = corrupted[chosen] == ids[chosen]
    assert hidden.float().mean().item() == pytest.approx(0.8, abs=0.01)
    assert stayed.float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert (~hidden & ~stayed).float().mean().item() == pytest.approx(0.1, abs=0.01)


def test_the_rest_stays_and_labels_are_the_truth() -> None:
    ids, corrupted, labels = corrupt()
    chosen = labels != -100
    assert torch.equal(corrupted[~chosen], ids[~chosen]) and torch.equal(labels[chosen], ids[chosen])
    assert not chosen[:, 0].any() and not chosen[:, 40:].any()
    assert corrupted.min() >= 0 and corrupted.max() < VOCAB


def test_probability_and_seed() -> None:
    assert (corrupt(0.0)[2] == -100).all()
    assert (corrupt(1.0)[2][:, 1:40] != -100).all()
    assert torch.equal(corrupt()[1], corrupt()[1]) and not torch.equal(corrupt()[1], corrupt(seed=1)[1])


def test_loss_is_the_mean_over_chosen() -> None:
    logits = torch.randn(2, 3, 7, requires_grad=True)
    labels = torch.tensor([[-100, 4, -100], [6, -100, -100]])
    log = logits.log_softmax(-1)
    torch.testing.assert_close(mlm_loss(logits, labels), -(log[0, 1, 4] + log[1, 0, 6]) / 2)
    assert mlm_loss(logits.bfloat16(), labels).dtype == torch.float32


def test_nothing_chosen_is_zero_with_a_gradient() -> None:
    logits = torch.randn(2, 3, 7, requires_grad=True)
    loss = mlm_loss(logits, torch.full((2, 3), -100))
    loss.backward()
    assert loss.item() == 0.0 and torch.equal(logits.grad, torch.zeros(2, 3, 7))


@pytest.mark.parametrize("asked", [1, 2, 5])
def test_the_loss_is_the_mean_over_the_words_that_are_asked(asked: int) -> None:
    logits = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.full((8,), NO_TARGET)
    labels[:asked] = torch.arange(asked)
    each = [-logits.flatten(0, 1)[n].log_softmax(0)[n] for n in range(asked)]
    torch.testing.assert_close(mlm_loss(logits, labels.view(2, 4)), torch.stack(each).mean())
