"""Sampling rules: hand-worked numbers, bounds that hold for every length, and the clip's own seed."""

import random
from collections import Counter

import pytest

from ivcore.video.sampling import Sampling, every, middle, rand


def test_rand_draws_from_each_segment_but_its_last_frame() -> None:
    seen = [Counter() for _ in range(4)]
    for seed in range(400):
        for place, index in enumerate(rand(18, 4, random.Random(seed))):
            seen[place][index] += 1
    assert [sorted(c) for c in seen] == [[0, 1, 2], [4, 5, 6, 7], [9, 10, 11], [13, 14, 15, 16]]
    assert min(min(c.values()) for c in seen) > 60  # evenly


def test_rand_of_a_short_clip_is_a_sorted_draw_and_then_its_last() -> None:
    drawn = [rand(7, 5, random.Random(seed)) for seed in range(50)]
    assert all(sorted(set(d)) == d and len(d) == 5 for d in drawn) and {i for d in drawn for i in d} == set(range(7))
    assert rand(3, 5, random.Random(0)) == [0, 1, 2, 2, 2]


@pytest.mark.parametrize("rule", ["middle", "rand", "fps"])
@pytest.mark.parametrize("num", [1, 2, 7, 8, 9, 100, 1001])
def test_every_rule_gives_as_many_frames_as_were_asked_for(rule: str, num: int) -> None:
    out = Sampling(rule, 8, fps=2.0, seed="clip").frames(num, 25.0)
    assert len(out) == 8 and out == sorted(out) and out[0] >= 0 and out[-1] < num
    assert all(type(i) is int for i in out)


def test_the_draw_belongs_to_the_clip() -> None:
    one, same, other = (Sampling("rand", 8, seed=seed).frames(100, 25.0) for seed in ("a", "a", "b"))
    assert one == same != other


def test_by_the_clock() -> None:
    assert Sampling("fps", 4, fps=1.0).frames(75, 25.0) == [12, 38, 62, 62]
    assert Sampling("fps", 2, fps=1.0).frames(75, 25.0) == [12, 38]
    assert Sampling("fps", 3, fps=0.5).frames(10, 30.0) == [*middle(10, 1)] * 3  # too short for one instant
    assert every(10, 0.5, 30.0) == []


def test_what_cannot_be_sampled_is_said() -> None:
    with pytest.raises(ValueError, match="no sampling rule 'best'"):
        Sampling("best", 8).frames(10, 1.0)
    with pytest.raises(ValueError, match="8 of 0"):
        Sampling("rand", 8).frames(0, 1.0)
    with pytest.raises(ValueError, match="above 0"):
        every(10, 1.0, 0.0)
