"""The vision tower: which token sits where, masks, images, what is refused, checkpointing."""

import pytest
import torch

from ivcore.models import build_s2
from ivcore.models.masking import random_drop_mask
from ivcore.models.vision import VisionTower


@pytest.fixture(scope="module")
def tower() -> VisionTower:
    return build_s2("tiny", 50, seed=0).vision_encoder.eval()


def video(num: int = 2, frames: int = 8, size: int = 32) -> torch.Tensor:
    return torch.randn(num, frames, 3, size, size, generator=torch.Generator().manual_seed(3))


def test_patches_are_the_convolution_in_frame_row_column_order(tower: VisionTower) -> None:
    x = video()
    convolved = tower.patch_embed.proj(x.transpose(1, 2))  # [B, C, T', H', W']
    expected = convolved.flatten(3).permute(0, 2, 3, 1)
    torch.testing.assert_close(tower.patch_embed(x), expected, rtol=1e-4, atol=1e-5)


def test_shapes(tower: VisionTower) -> None:
    tokens = tower(video())
    assert tokens.shape == (2, 65, 96) and tower.pool(tokens).shape == (2, 128)


def test_kept_tokens_keep_their_order_and_positions(tower: VisionTower) -> None:
    drop = random_drop_mask(2, 64, 0.5, torch.Generator().manual_seed(0))
    whole, kept = tower.embed(video()), tower.embed(video(), drop)
    for row in range(2):
        assert torch.equal(kept[row], whole[row][~drop[row]])
    assert tower(video(), drop).shape == (2, 33, 96)


def test_dropped_patches_cannot_be_seen(tower: VisionTower) -> None:
    drop = torch.zeros(1, 65, dtype=torch.bool)
    drop[0, 1:17] = True  # the first time step
    a, b = video(1), video(1)
    b[:, :2] = 0.0
    assert torch.equal(tower(a, drop), tower(b, drop))


def test_image_takes_the_mean_table(tower: VisionTower) -> None:
    x = video(frames=2)  # one tubelet is one time step
    expected = tower.patch_embed(x)[:, 0] + tower.pos_embed[:, 1:].unflatten(1, (4, 16)).mean(1)
    torch.testing.assert_close(tower.embed(x)[:, 1:], expected)


@pytest.mark.parametrize("shape", [(2, 8, 3, 30, 32), (2, 4, 3, 32, 32), (2, 3, 3, 32, 32), (8, 3, 32, 32)])
def test_videos_that_do_not_fit(tower: VisionTower, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="got"):
        tower(torch.zeros(shape))


def test_masks_that_do_not_fit(tower: VisionTower) -> None:
    drop = torch.zeros(2, 65, dtype=torch.bool)
    uneven, headless = drop.clone(), drop.clone()
    uneven[0, 3] = True
    headless[:, 0] = True
    for wrong in (uneven, headless, drop[:, 1:], drop.float()):
        with pytest.raises(ValueError, match="drop"):
            tower(video(), wrong)


def test_alignment_only_where_there_are_decoders(tower: VisionTower) -> None:
    with pytest.raises(ValueError, match="decoders"):
        tower.align(video())
    model = build_s2("tiny", 50, seed=0, num_decoders=2, decoder_width=7, final_decoder_width=5, image_table=True)
    middle, final = model.vision_encoder.align(video())
    assert middle.shape == (2, 2, 65, 7) and final.shape == (2, 5)
    torch.testing.assert_close(middle.norm(dim=-1), torch.ones(2, 2, 65))


def test_checkpointing_changes_no_number() -> None:
    grads = []
    for blocks in (0, 3):
        model = build_s2("tiny", 50, seed=0, checkpoint_blocks=blocks, checkpoint_layers=bool(blocks)).train()
        tokens, pooled = model.encode_video(video())
        ids = torch.arange(1, 13).view(2, 6)
        states = model.encode_text(ids, torch.ones_like(ids))
        logits = model.match(states, torch.ones_like(ids), model.video_kv(tokens))
        (logits.sum() + pooled.sum()).backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        assert torch.equal(grad, grads[1][name]), name


def test_one_frame_stands_for_a_time_step(tower: VisionTower) -> None:
    one = video(frames=1)
    assert tower.shape.tubelet_size == 2 and tower(one).shape == (2, 17, 96)
    assert torch.equal(tower(one), tower(one.repeat(1, 2, 1, 1, 1)))
