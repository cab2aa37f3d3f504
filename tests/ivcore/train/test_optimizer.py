"""Learning rates: the published schedule, and a rate of its own for every group."""

import pytest

from ivcore.config import Phase, StageConfig
from ivcore.train import optimizer
from tests.ivcore.train import made_up


def test_published_schedule():
    phase = Phase(name="p", steps=100, warmup_steps=20, schedule="published", end_lr_factor=0.01)
    factors = [optimizer.lr_factor(phase, s) for s in range(100)]
    assert factors[0] == 0.01 and factors[10] == 0.5 and factors[20] == 1.0
    assert factors[60] == pytest.approx(0.5) and min(factors) == 0.01 and factors[99] < 0.011


def test_what_the_config_says_of_the_end_is_so():
    """A step after the last would have end_lr_factor; published touches it earlier, and is never below."""
    level = Phase(name="p", steps=40, warmup_steps=4, decay_from=0.25, end_lr_factor=0.2)
    factors = [optimizer.lr_factor(level, s) for s in range(41)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0] and set(factors[3:11]) == {1.0}  # 10 of 40, the warm-up among them
    assert factors[10:] == sorted(factors[10:], reverse=True) and factors[11] < 1
    assert factors[39] > factors[40] == pytest.approx(0.2)
    for other in ({"decay_from": 1.0}, {"decay_from": 0.9, "schedule": "published"}):
        same = level.model_copy(update=other)
        assert (optimizer.lr_factor(same, 39) == 1.0) == ("schedule" not in other)
    published = level.model_copy(update={"schedule": "published"})
    factors = [optimizer.lr_factor(published, s) for s in range(40)]
    assert factors[0] == factors[39] == min(factors) == 0.2 and factors[4] == 1.0 > factors[5]


def test_groups_hold_every_trained_parameter_once_under_its_own_rate():
    model = made_up.parts("s2")[0]
    stage = StageConfig(phases=(), different_lr={"itm_head": 10.0, r"text_encoder\.cls": 0.5})
    groups = optimizer.groups(model, stage)
    name_of = {id(p): n for n, p in model.named_parameters()}
    found = {name_of[id(p)]: (g["factor"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert found.keys() == {n for n, p in model.named_parameters() if p.requires_grad}
    assert found["itm_head.weight"] == (10.0, 0.02) and found["itm_head.bias"] == (10.0, 0.0)
    assert found["text_encoder.cls.predictions.bias"][0] == 0.5
    assert found["temp"] == (1.0, 0.0) and found["vision_encoder.pos_embed"] == (1.0, 0.0)
    assert found["text_encoder.bert.embeddings.word_embeddings.weight"] == (1.0, 0.02)
    optimiser = optimizer.adamw(model, stage, Phase(name="p", steps=9, warmup_steps=0))
    lr = optimizer.set_lr(optimiser, stage, Phase(name="p", steps=9, warmup_steps=0), 0)
    assert {g["lr"] for g in optimiser.param_groups} == {lr, 10 * lr, lr / 2}
