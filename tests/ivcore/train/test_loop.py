"""The loop on a handful of made-up videos: same bytes for a seed, frozen weights stay, losses fall; validation."""

import pytest
import torch

from ivcore import config, steps
from ivcore.checkpoints import checkpoint
from ivcore.errors import WorkError
from ivcore.models.freeze import digest
from ivcore.store import schemas
from ivcore.train import backward, loop
from ivcore.train.loop import Loop
from tests.ivcore.train import made_up
from tests.ivcore.train.chain import SMALL, Chain

LORA = ("self_attn.q_proj.weight", "self_attn.v_proj.weight")


def files(artifact):
    return artifact.record()["files"]


def test_same_seed_same_bytes(chain, tmp_path):
    again = Chain(tmp_path)
    assert files(again.first) == files(chain.first)
    assert files(again.features) == files(chain.features)
    assert files(again.last) == files(chain.last)


def test_curves_hold_every_loss_and_contrast_falls(chain):
    rows = list(schemas.rows(chain.first.path / "curves.parquet", schemas.CURVES))
    assert {"loss/vtc", "loss/vtm", "loss/mlm", "lr", "temp", "grad_norm"} <= {r["name"] for r in rows}
    contrast = [r["value"] for r in rows if r["name"] == "loss/vtc"]
    assert contrast[-1] < contrast[0]


def test_fusion_phase_leaves_the_tower_and_its_features_alone(chain):
    assert chain.last.record()["facts"]["vision_digest"] == chain.first.record()["facts"]["vision_digest"]
    c = chain.config
    assert steps.featurize(chain.store, c.features, c.train, chain.frames, chain.last).key == chain.features.key


def test_clip_trains_what_its_policy_says_and_nothing_else(chain):
    text, pooler = chain.config.train.clip.phases
    first = chain.run(chain.clip(text, chain.last))
    second = chain.run(chain.clip(pooler, first))
    facts = second.record()["facts"]
    assert facts["digest_before"] == facts["digest_after"]
    assert all(n == "temp" or n.startswith("vision_encoder.clip_projector.") for n in facts["trained_names"])
    assert 0 < facts["params_trained"] < facts["params_total"]


def test_lora_trains_beside_frozen_matrices_and_ends_inside_them(chain):
    text, pooler = chain.config.train.clip.phases
    first = chain.run(chain.clip(text, chain.last))
    branches = pooler.model_copy(update={"name": "branches", "trainable": "clip_lora"})
    second = chain.run(chain.clip(branches, first))
    facts = second.record()["facts"]
    assert facts["digest_before"] == facts["digest_after"] and any("lora_B" in n for n in facts["trained_names"])
    before, after = (checkpoint.load(a.path)[0].state_dict() for a in (first, second))
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert {n for n in moved if n.startswith("text_encoder.")} == {n for n in before if n.endswith(LORA)}


def test_a_frozen_weight_that_moves_is_an_error(chain, monkeypatch):
    def moving(model, stage, phase, **how):
        optimiser = adamw(model, stage, phase)
        frozen = next(p for n, p in model.named_parameters() if n.endswith("patch_embed.proj.bias"))
        optimiser.register_step_post_hook(lambda *_: frozen.data.add_(torch.finfo(torch.float32).eps))
        return optimiser

    adamw = loop.adamw
    monkeypatch.setattr(loop, "adamw", moving)
    other = chain.config.train.clip.phases[0].model_copy(update={"steps": 2})
    step = chain.clip(other, chain.last)
    with pytest.raises(WorkError, match="frozen"):
        chain.run(step)
    assert chain.store.find("clip", step.key) is None


def test_not_finite_stops_and_names_the_step(chain, monkeypatch):
    monkeypatch.setattr(
        backward,
        "normalise",
        lambda frames: torch.full_like(frames, float("nan"), dtype=torch.float32).permute(0, 1, 4, 2, 3),
    )
    phase = chain.config.train.s2.phases[0].model_copy(update={"steps": 2, "batches": "random"})
    with pytest.raises(WorkError, match=r"phase all, step 1: .*bad-step-1\.json"):
        chain.run(chain.s2(phase, chain.frames, None))


def test_only_the_clip_rate_changed_leaves_s2_keys_alone(chain):
    other = config.variants(config.load("demo", [*SMALL, "train.clip.lr=1e-4"]))[0][2]
    c = chain.config
    assert (
        steps.fit_s2(
            chain.store, c.model, other.train, other.train.s2.phases[0], chain.manifest, chain.frames, None
        ).key
        == chain.first.key
    )
    one, two = (
        steps.fit_clip(chain.store, c.model, t, t.clip.phases[0], chain.manifest, chain.features, chain.last).key
        for t in (c.train, other.train)
    )
    assert one != two


def looked(found, stage, tmp_path, steps=8):
    """A loop whose looks at the validation split give `found` in turn."""
    base = made_up.loop("clip", made_up.phase("clip", steps=steps), stage)
    answers, seen = iter(found), []

    def look(encoder):
        seen.append(digest(encoder.model, loop.named))
        return next(answers)

    loop = Loop(*(getattr(base, n) for n in ("encoder", "source", "train", "stage", "phase", "ranks")), look)
    loop.run(made_up.batches(steps), lambda figures, step: None, tmp_path)
    return loop, seen


def test_no_better_look_ends_the_phase_and_the_best_is_kept(tmp_path):
    stage = {"validate_every": 2, "patience": 2, "keep": "best"}
    loop, seen = looked([10.0, 30.0, 20.0, 30.0, 99.0], stage, tmp_path, steps=12)
    assert loop.totals.step == 8 and loop.totals.best == 30.0 and loop.totals.best_step == 4
    assert digest(loop.model, loop.named) == seen[1] != seen[3]
    assert [r["value"] for r in loop.totals.curves if r["name"] == "val/r1"] == [10.0, 30.0, 20.0, 30.0]


def test_the_last_step_is_kept_unless_asked(tmp_path):
    loop, seen = looked([30.0, 20.0], {"validate_every": 4}, tmp_path)
    assert digest(loop.model, loop.named) == seen[1] and loop.totals.best_step == 4 and loop.totals.step == 8
