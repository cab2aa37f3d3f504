"""Keep the tokens of a frozen trunk, or run it again: the plan's arithmetic, and a plan carried out."""

import dataclasses
import math

import pytest

from ivcore.config import Phase, StageConfig, TrainConfig
from ivcore.features.plan import Costs, clips_read, disk_speed, keep, matmul_speed

COSTS = Costs(num_clips=1000, clips_read=3000, clip_bytes=4e6, trunk_s=0.02, write_bps=2e8, read_bps=1e9)


def seconds(costs: Costs, kept: bool) -> float:
    """Trunk once, written, read at every pass; or trunk at every pass."""
    if not kept:
        return costs.clips_read * costs.trunk_s
    once = costs.num_clips * (costs.trunk_s + costs.clip_bytes / costs.write_bps)
    return once + costs.clips_read * costs.clip_bytes / costs.read_bps


@pytest.mark.parametrize("clips", [100, 1000, 2400, 2600, 9000])
@pytest.mark.parametrize("read_bps", [1e8, 2.1e8, 1e9])
def test_the_plan_is_the_quicker_one(clips, read_bps):
    costs = dataclasses.replace(COSTS, clips_read=clips, read_bps=read_bps)
    kept, why = keep(costs)
    assert kept == (seconds(costs, True) <= seconds(costs, False))
    assert why.startswith("4.00 GB for") and ("cache" if kept else "recompute") in why


def test_each_view_is_encoded_and_stored_but_one_a_clip_is_read():
    three = dataclasses.replace(COSTS, views=3)
    assert three.even_epochs == pytest.approx(3 * COSTS.even_epochs) and three.epochs == COSTS.epochs
    assert keep(COSTS)[1].startswith("4.00 GB") and keep(three)[1].startswith("12 GB for 3 epochs: recompute")


def test_a_disk_slower_than_the_trunk_is_never_asked():
    costs = dataclasses.replace(COSTS, read_bps=1e8)
    assert math.isinf(costs.even_epochs) and not keep(costs)[0]


def test_clips_read_counts_phases_with_a_frozen_trunk():
    phases = (Phase(name="all", steps=100), Phase(name="fusion", steps=10, trainable="fusion"))
    clip = (Phase(name="pooler", epochs=2.0, trainable="clip"), Phase(name="trunk", steps=7, trainable="clip_trunk"))
    train = TrainConfig(s2=StageConfig(batch_size=8, phases=phases), clip=StageConfig(batch_size=4, phases=clip))
    assert clips_read(train, 50) == 10 * 8 + 2 * 50


def test_speeds_are_measured(tmp_path):
    write, read = disk_speed(tmp_path)
    assert write > 0 and read > 0 and not list(tmp_path.iterdir())
    assert matmul_speed(TrainConfig(device="cpu")) > 1e8
