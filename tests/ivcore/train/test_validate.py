"""A look at the split val while a phase trains."""

import pytest
import torch
from torch import nn

from ivcore.config import StageConfig, TrainConfig
from ivcore.train.job import Job
from ivcore.train.validate import Validation
from tests.ivcore.train import made_up


class Captions:
    """Every clip is of the split val, with a caption of its own."""

    def texts(self, language, text_class, split):
        return [(f"t{n}", f"clip-{n:02}", text) for n, text in enumerate(made_up.captions())] if split == "val" else []

    def media(self, clip):
        return "video"


class Source(made_up.Clips):
    def rows_of(self, clips):
        return [self.clip_ids.index(clip) for clip in clips]


@pytest.mark.parametrize("kind", ["s2", "clip"])
def test_a_look_leaves_out_what_training_leaves_to_chance(kind):
    """No dropout and no stochastic depth while it looks, so two looks see the same; both are back when it is over."""
    phase = made_up.phase(kind)
    loop = made_up.loop(kind, phase, dropout=0.5)
    stage = StageConfig(phases=(phase,), validate_every=1)
    look = Validation(
        Job.model_construct(kind=kind, train=TrainConfig(), stage=stage, phase=phase), Captions(), Source()
    )
    modes, before = [], [module.training for module in loop.model.modules()]  # frozen parts stay as they are used
    for module in loop.model.modules():
        if isinstance(module, nn.Dropout) or not list(module.children()):
            module.register_forward_pre_hook(lambda module, given: modes.append(module.training))
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(look(loop.encoder))
    assert modes and not any(modes) and found[0] == found[1]
    assert [module.training for module in loop.model.modules()] == before and any(before)
