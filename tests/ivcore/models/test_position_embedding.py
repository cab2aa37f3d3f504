"""Tables: known weights of the interpolation, order of the slots, images."""

import pytest
import torch

from ivcore.models.position_embedding import image_table, resize, sincos


def table(num_t: int, side: int, width: int = 2) -> torch.Tensor:
    return torch.randn(1, 1 + num_t * side * side, width, generator=torch.Generator().manual_seed(0))


def test_four_frames_to_eight() -> None:
    old = table(4, 2)
    e = old[0, 1:].unflatten(0, (4, 4))
    expected = [
        e[0],
        0.75 * e[0] + 0.25 * e[1],
        0.25 * e[0] + 0.75 * e[1],
        0.75 * e[1] + 0.25 * e[2],
        0.25 * e[1] + 0.75 * e[2],
        0.75 * e[2] + 0.25 * e[3],
        0.25 * e[2] + 0.75 * e[3],
        e[3],
    ]
    new = resize(old, (4, 2, 2), (8, 2, 2))
    torch.testing.assert_close(new[0, 1:].unflatten(0, (8, 4)), torch.stack(expected))
    assert torch.equal(new[:, 0], old[:, 0])


def test_eight_frames_to_four_are_means_of_pairs() -> None:
    old = table(8, 2)
    pairs = old[0, 1:].unflatten(0, (4, 2, 4)).mean(1)
    torch.testing.assert_close(resize(old, (8, 2, 2), (4, 2, 2))[0, 1:].unflatten(0, (4, 4)), pairs)


def test_same_grid_changes_nothing_and_bf16_stays() -> None:
    old = table(3, 2).bfloat16()
    assert torch.equal(resize(old, (3, 2, 2), (3, 2, 2)), old)
    assert resize(old, (3, 2, 2), (6, 3, 3)).dtype == torch.bfloat16


def test_wrong_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        resize(table(4, 2), (3, 2, 2), (4, 2, 2))


def test_image_is_the_mean_over_time() -> None:
    old = table(3, 2)
    new = image_table(old, (3, 2, 2))
    assert new.shape == (1, 5, 2)
    torch.testing.assert_close(new[0, 2], (old[0, 2] + old[0, 6] + old[0, 10]) / 3)


def test_sines_slot_by_slot() -> None:
    grid, width = (2, 3, 4), 16
    slots = sincos(width, grid)
    assert slots.shape == (1, 25, width) and not slots[0, 0].any()

    def code(position: int, size: int) -> torch.Tensor:
        angles = torch.tensor([position / 10000 ** (j / (size // 2)) for j in range(size // 2)])
        return torch.cat([angles.sin(), angles.cos()])

    for t, y, x in ((0, 0, 0), (1, 2, 3), (1, 0, 2), (0, 1, 0)):
        expected = torch.cat([code(t, 4), code(x, 6), code(y, 6)])
        torch.testing.assert_close(slots[0, 1 + (t * 3 + y) * 4 + x], expected)


def test_width_that_cannot_be_cut() -> None:
    with pytest.raises(ValueError, match="16"):
        sincos(40, (1, 2, 2))
