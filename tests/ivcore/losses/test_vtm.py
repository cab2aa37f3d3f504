"""Matching: the order of the 3B pairs, who can be a negative, what happens when nobody can."""

import pytest
import torch
from torch import Tensor

from ivcore.errors import UserError
from ivcore.losses.vtm import negative_weights, pairs, vtm_loss, vtm_negatives


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Spy:
    """A matcher that notes the pairs and says what it is told to."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits

    def match_unpadded(self, states: Tensor, mask: Tensor, kv: list, video_index: Tensor) -> Tensor:
        self.texts, self.masks, self.videos = states[:, 0, 0].tolist(), mask[:, 0].tolist(), video_index.tolist()
        return self.logits


def test_pairs_stand_in_upstreams_order() -> None:
    spy = Spy(torch.tensor([[0.0, 1.0]] * 3 + [[2.0, 0.0]] * 6).bfloat16())
    states = torch.arange(3.0)[:, None, None].expand(3, 2, 4)
    mask = torch.tensor([[10], [11], [12]])
    loss, logits = vtm_loss(spy, states, mask, [], torch.tensor([1, 2, 0]), torch.tensor([2, 0, 1]))
    assert spy.texts == [0, 1, 2, 0, 1, 2, 2, 0, 1]
    assert spy.videos == [0, 1, 2, 1, 2, 0, 0, 1, 2]
    assert spy.masks == [10 + t for t in spy.texts]
    right, wrong = torch.tensor(-1.0).exp(), torch.tensor(-2.0).exp()
    expected = (3 * right.log1p() + 6 * wrong.log1p()) / 9  # class 1 = match
    torch.testing.assert_close(loss, expected)
    assert logits.shape == (9, 2) and logits.dtype == torch.float32


def test_equal_ids_are_never_drawn() -> None:
    g = seeded()
    video, text = torch.randn(6, 4, generator=g), torch.randn(6, 4, generator=g)
    ids = torch.tensor([0, 0, 1, 2, 2, 3])
    for _ in range(50):
        for drawn in vtm_negatives(video, text, 0.07, ids, g):
            assert (ids[drawn] != ids).all()


def test_hard_ones_are_drawn_more_often() -> None:
    video = torch.eye(3)
    text = torch.nn.functional.normalize(torch.tensor([[1.0, 0.8, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), dim=1)
    g = seeded()
    drawn = torch.stack([vtm_negatives(video, text, 0.2, torch.arange(3), g)[0] for _ in range(300)])
    share = (drawn[:, 0] == 1).float().mean().item()  # text 0 looks like video 1
    weights = negative_weights(video, text, 0.2, torch.arange(3))[1][0]
    assert share == pytest.approx((weights[1] / weights.sum()).item(), abs=0.06) and share > 0.9


def test_weights_rounded_to_nothing_are_drawn_evenly() -> None:
    same = torch.eye(4)
    drawn = torch.stack([vtm_negatives(same, same, 0.001, torch.arange(4), seeded(s))[0] for s in range(200)])
    assert set(drawn[:, 0].tolist()) == {1, 2, 3}


def test_one_family_falls_back_on_the_next_row() -> None:
    side = torch.randn(4, 3, generator=seeded())
    for drawn in vtm_negatives(side, side, 0.07, torch.zeros(4, dtype=torch.long), seeded()):
        assert drawn.tolist() == [1, 2, 3, 0]


def test_one_row_says_what_to_do() -> None:
    with pytest.raises(UserError, match="leave the matching loss out"):
        vtm_negatives(torch.ones(1, 2), torch.ones(1, 2), 0.07, torch.zeros(1), seeded())


def test_seed_decides() -> None:
    side = torch.randn(8, 3, generator=seeded())
    a, b = (vtm_negatives(side, side.flip(0), 0.5, torch.arange(8), seeded(3)) for _ in "ab")
    assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1])


def test_no_gradient_through_the_draw() -> None:
    side = torch.randn(4, 3, requires_grad=True)
    weights = negative_weights(side, side, torch.tensor(0.07, requires_grad=True), torch.arange(4))
    assert not any(w.requires_grad for w in weights)
    assert all((w.diagonal() == 0).all() for w in weights)
    assert pairs(torch.tensor([1, 0]), torch.tensor([1, 0]))[0].tolist() == [0, 1, 0, 1, 1, 0]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_similarity_that_is_no_number_weighs_a_little(bad: float) -> None:
    """Upstream's guard: 0.01 in place of it, and the draw goes on; the loss is then stopped or skipped by its own."""
    g = seeded()
    video, text = torch.randn(4, 3, generator=g), torch.randn(4, 3, generator=g)
    video[1, 0] = bad
    ids = torch.arange(4)
    texts_for_video, videos_for_text = negative_weights(video, text, 0.07, ids)
    assert torch.equal(texts_for_video[1], torch.tensor([0.01, 0.0, 0.01, 0.01]))
    assert all(w.isfinite().all() and not w.diagonal().any() for w in (texts_for_video, videos_for_text))
    for drawn in vtm_negatives(video, text, 0.07, ids, g):
        assert (drawn != ids).all()


def test_two_rows_are_each_others_negatives() -> None:
    side = torch.randn(2, 3, generator=seeded())
    assert [drawn.tolist() for drawn in vtm_negatives(side, side, 0.07, torch.arange(2), seeded())] == [[1, 0]] * 2


def test_a_row_without_weights_leaves_the_others_theirs() -> None:
    """Text 0 is like its own video alone, so it draws evenly; each other text is like one more, and draws that."""
    video = torch.eye(4)
    text = torch.stack([video[0], video[1] + video[2], video[2] + video[3], video[3] + video[1]])
    drawn = torch.stack([vtm_negatives(video, text, 0.001, torch.arange(4), seeded(s))[0] for s in range(60)])
    assert set(drawn[:, 0].tolist()) == {1, 2, 3}
    assert all(row == [2, 3, 1] for row in drawn[:, 1:].tolist())
