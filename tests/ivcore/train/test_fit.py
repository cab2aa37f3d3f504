"""A whole phase in the less usual ways: pure bf16, compiled blocks, the best look kept."""

import pytest
import torch

from ivcore import config, steps
from ivcore.checkpoints import checkpoint
from ivcore.errors import UserError
from ivcore.store import schemas
from ivcore.train import fit
from ivcore.train.loop import Loop


def clip(chain, phase, name, stage=None, **train):
    """A clip phase of 6 steps on the chain's features, trained in another way."""
    c = chain.config
    settings = c.train.model_copy(update={"clip": c.train.clip.model_copy(update=stage or {}), **train})
    other = phase.model_copy(update={"name": name, "steps": 6})
    return steps.fit_clip(chain.store, c.model, settings, other, chain.manifest, chain.features, chain.last)


def test_rounded_weights_stand_still_as_they_were_before_and_what_trains_is_not_rounded(chain):
    phase = chain.config.train.clip.phases[1]
    made = chain.run(clip(chain, phase, "pure", weights="bfloat16", dtype="bfloat16"))
    facts = made.record()["facts"]
    assert facts["digest_before"] == facts["digest_after"]
    state = checkpoint.load(made.path)[0].state_dict()
    trained = [state[n] for n in facts["trained_names"]]
    assert any(not torch.equal(t, t.bfloat16().float()) for t in trained)
    frozen = [state[n] for n in state if n not in facts["trained_names"] and state[n].numel() > 1000]
    assert any(not torch.equal(t, t.bfloat16().float()) for t in frozen)
    assert made.key != clip(chain, phase, "pure", dtype="bfloat16").key


def test_a_step_below_the_rounding_of_its_weights_is_not_lost(chain):
    """At lr 1e-6 an update is a 250th of a bfloat16 place of most weights; none of it may be gone."""
    phase = chain.config.train.clip.phases[1].model_copy(update={"warmup_steps": 0})
    start = checkpoint.load(chain.last.path)[0].state_dict()
    made = [
        chain.run(clip(chain, phase, "small", {"lr": 1e-6}, dtype="bfloat16", **more))
        for more in ({"weights": "bfloat16"}, {})
    ]
    rounded, whole = (checkpoint.load(one.path)[0].state_dict() for one in made)
    names = [n for n in made[0].record()["facts"]["trained_names"] if n in start and start[n].ndim == 2]
    assert names
    for name in names:
        moved, wanted = (state[name] - start[name] for state in (rounded, whole))
        assert torch.corrcoef(torch.stack([moved.flatten(), wanted.flatten()]))[0, 1] > 0.9, name


def test_clip_trains_with_a_bert_for_its_text_tower(chain):
    phase = chain.config.train.clip.phases[0].model_copy(update={"text_tower": "bert"})
    made = chain.run(clip(chain, phase, "bert"))
    assert made.record()["facts"]["digest_before"] == made.record()["facts"]["digest_after"]
    model, tokenizer = checkpoint.load(made.path)
    assert (model.config.text_shape().kind, tokenizer.kind) == ("bert", "bert")
    fit._fit_memory(model, chain.config.train.model_copy(update={"checkpoint_text": True}), torch.device("cpu"))
    assert any(getattr(m, "gradient_checkpointing", False) for m in model.text_encoder.bert.modules())
    again = chain.clip(chain.config.train.clip.phases[1], made)
    assert checkpoint.load(chain.run(again).path)[0].config.text_shape().kind == "bert"  # the pooler goes on from it
    own = chain.config.train.clip.phases[0]
    assert (
        clip(chain, own, "bert").key
        == clip(chain, own.model_copy(update={"text_tower": "own"}), "bert").key
        != made.key
    )


def bert(name="a"):
    return {"name": name, "steps": 1, "text_tower": "bert"}


@pytest.mark.parametrize(
    "values",
    [
        {"train": {"s2": {"phases": [bert()]}}},
        {"train": {"clip": {"phases": [{"name": "a", "steps": 1}, bert("b")]}}},
        {"model": {"clip_init": "x"}, "train": {"clip": {"phases": [bert()]}}},
    ],
)
def test_a_tower_is_chosen_where_clip_begins_and_nowhere_else(values):
    with pytest.raises(UserError, match="a tower is chosen by clip's first phase"):
        config.parse(values)


def test_cpu_of_the_processes_before_counts(chain, monkeypatch):
    resume = Loop._resume

    def resumed(self, states):
        self.cpu_s_before = 1e6
        return resume(self, states)

    monkeypatch.setattr(Loop, "_resume", resumed)
    made = chain.run(clip(chain, chain.config.train.clip.phases[1], "again")).record()
    assert made["measured"]["cpu_s_before"] == 1e6 < made["cpu_s"] < 1e6 + 1000


@pytest.mark.parametrize("kind", ["s2", "clip"])
def test_compiled_blocks_give_the_same_losses(chain, kind, monkeypatch):
    from torch._dynamo.utils import counters

    compile = torch.nn.Module.compile
    # No C++, which takes seconds.
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: compile(self, backend="aot_eager"))

    c, found = chain.config, []
    counters.clear()
    for compiled in (False, True):
        train = c.train.model_copy(update={"compile": compiled})
        phase = getattr(c.train, kind).phases[0].model_copy(update={"name": "blocks", "steps": 6, "trainable": "all"})
        fit = {"s2": steps.fit_s2, "clip": steps.fit_clip}[kind]
        init = None if kind == "s2" else chain.last
        made = chain.run(fit(chain.store, c.model, train, phase, chain.manifest, chain.frames, init))
        rows = schemas.rows(made.path / "curves.parquet", schemas.CURVES)
        found.append({r["name"]: r["value"] for r in rows})
        assert (counters["stats"]["unique_graphs"] > 0) == compiled
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_looks_at_the_validation_split_are_on_the_curves_and_in_the_facts(chain):
    phase = chain.config.train.clip.phases[0]
    made = chain.run(clip(chain, phase, "looks", {"validate_every": 3, "keep": "best"}))
    facts = made.record()["facts"]
    rows = list(schemas.rows(made.path / "curves.parquet", schemas.CURVES))
    looks = {r["step"]: r["value"] for r in rows if r["name"] == "val/r1"}
    assert set(looks) == {3, 6} and all(0 <= v <= 100 for v in looks.values())
    assert facts["best_val_r1"] == max(looks.values()) == looks[facts["best_step"]] and facts["kept"] == "best"


def test_without_captions_there_is_nothing_to_look_at(chain):
    phase = chain.config.train.clip.phases[0].model_copy(update={"languages": ("es",)})
    step = clip(chain, phase, "blind", {"validate_every": 3})
    from ivcore.datasets.captions import Captions

    with pytest.MonkeyPatch.context() as patch:
        texts = Captions.texts
        patch.setattr(Captions, "texts", lambda self, *of: [] if of[2] == "val" else texts(self, *of))
        with pytest.raises(UserError, match=r"validate_every is 3, but the split val has no short caption in es"):
            chain.run(step)


def test_a_recipe_names_the_kind_of_device_and_the_ranks_that_matching_depends_on(chain, monkeypatch):
    c, phase = chain.config, chain.config.train.s2.phases[0]

    def key(**train):
        settings = c.train.model_copy(update=train)
        return steps.fit_s2(chain.store, c.model, settings, phase, chain.manifest, chain.frames, None).key

    assert key() == key(device="cpu") != key(device="cuda") == key(device="cuda:1")
    assert key() == key(ranks=1) != key(ranks=2) == key(ranks=2, parallel="fsdp2")
    monkeypatch.setattr(type(c.train), "device_type", "cuda")  # as where `auto` finds a card
    assert key() == key(device="cuda")


def test_options_that_are_not_set_leave_keys_alone(chain):
    c = chain.config
    recipe, stage = c.train.recipe(), c.train.clip.recipe()
    later = {"weights", "compile", "vtc_gradient", "ranks", "parallel", "on_nan", "save_every_min", "checkpoint_text"}
    assert not later & set(recipe) and not {"accumulate", "different_lr", "grad_cache_chunk", "keep"} & set(stage)
    assert c.train.model_copy(update={"compile": True}).recipe()["compile"] is True
