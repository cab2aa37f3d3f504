"""Pictures to the size of the model."""

import numpy as np
import pytest
import torch

from ivcore.video.resize import resize


@pytest.mark.parametrize("antialias", [True, False])
def test_resize_is_torch_bicubic_of_all_pictures_at_once(antialias: bool) -> None:
    chance = np.random.default_rng(0)
    for high, wide in ((49, 67), (240, 320), (64, 64)):
        frames = chance.integers(0, 256, (3, high, wide, 3), np.uint8)
        planes = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
        plain = torch.nn.functional.interpolate(planes, (64, 64), mode="bicubic", antialias=antialias)
        plain = plain.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
        assert np.array_equal(resize(frames, 64, antialias), plain)
        assert np.array_equal(
            resize([np.rot90(f) for f in frames], 64, antialias)[0], resize(np.rot90(frames[0])[None], 64, antialias)[0]
        )
    mixed = resize([frames[0], np.zeros((10, 30, 3), np.uint8), frames[1]], 64, antialias)
    assert np.array_equal(mixed[[0, 2]], frames[:2]) and not mixed[1].any()
