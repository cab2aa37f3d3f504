"""Captions of a frozen text tower: computed once, and the same as at every step."""

import pytest
import torch

from ivcore.checkpoints import checkpoint
from ivcore.models.freeze import apply_policy
from ivcore.models.llama import LlamaTower
from ivcore.retrieval.embed import Encoder
from ivcore.train import fit
from ivcore.train.frozen_texts import FrozenTexts, pays
from tests.ivcore.train import made_up


@pytest.mark.parametrize("policy", ["clip", "clip_projection"])
def test_vectors_and_gradients_are_those_of_every_step(policy):
    model, tokenizer = made_up.parts("clip")
    apply_policy(model, policy)
    texts, some = made_up.captions(), made_up.captions()[5:20]
    frozen = FrozenTexts(Encoder(model, tokenizer, 32, torch.device("cpu"), torch.float32), texts)
    ids, _ = tokenizer.encode(some, 32)
    ours, plain = model.project_text(frozen(some)), model.encode_text(ids)
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-6)
    if policy == "clip_projection":
        matrix = model.text_encoder.text_projection
        one, other = (torch.autograd.grad(x.square().sum(), matrix)[0] for x in (ours, plain))
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_they_pay_where_the_tower_stands_still_and_captions_come_back():
    model, _ = made_up.parts("clip")
    for policy, expected in (("clip", True), ("clip_projection", True), ("clip_text", False), ("clip_trunk", True)):
        apply_policy(model, policy)
        assert pays(model, 48, 480) == expected
    assert not pays(model, 48, 40)
    assert not pays(made_up.parts("s2")[0], 48, 480)


def test_a_phase_runs_the_tower_before_its_steps_and_ends_with_the_same_weights(chain, monkeypatch):
    text, pooler = chain.config.train.clip.phases
    first, runs, forward = chain.run(chain.clip(text, chain.last)), [], LlamaTower.read
    monkeypatch.setattr(LlamaTower, "read", lambda self, ids: runs.append(len(ids)) or forward(self, ids))
    phase = pooler.model_copy(update={"name": "cached", "steps": 8})
    monkeypatch.setattr(fit, "pays", lambda model, captions, samples: True)
    cached = chain.run(chain.clip(phase, first))
    assert 0 < len(runs) <= 2
    runs.clear()
    monkeypatch.setattr(fit, "pays", lambda model, captions, samples: False)
    plain = chain.run(chain.clip(phase.model_copy(update={"name": "plain"}), first))
    assert len(runs) == 8
    one, other = (checkpoint.load(a.path)[0].state_dict() for a in (cached, plain))
    assert one.keys() == other.keys()
