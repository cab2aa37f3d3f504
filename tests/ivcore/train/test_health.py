"""What is no number is stopped or left out and named; schedules, groups, parts of a batch, validation."""

import json

import pytest
import torch

from ivcore.config import Phase, StageConfig
from ivcore.errors import UserError, WorkError
from ivcore.models.freeze import digest
from ivcore.train import health, optimizer
from ivcore.train.state import model_and_optimiser
from ivcore.train.totals import Tally
from tests.ivcore.train import made_up


def quiet(figures, step):
    pass


def poisoned(kind, bad_step, monkeypatch, **train):
    """A loop whose batch at `bad_step` (from 1) is not a number."""
    loop = made_up.loop(kind, made_up.phase(kind, steps=5), **train)
    inputs, rows = loop._inputs, []

    def poison(batch, draws):
        found = inputs(batch, draws)
        rows.append(batch.rows)
        if loop.tally.step + 1 == bad_step:
            found.video.fill_(float("nan"))
        return found

    monkeypatch.setattr(loop, "_inputs", poison)
    return loop, rows


@pytest.mark.parametrize("kind", ["s2", "clip"])
def test_not_a_number_stops_with_the_batch_on_file(kind, tmp_path, monkeypatch):
    loop, rows = poisoned(kind, 3, monkeypatch)
    with pytest.raises(WorkError, match=r"phase made_up, step 3: .*nan.*bad-step-3\.json.*on_nan=skip"):
        loop.run(made_up.batches(5), quiet, tmp_path)
    kept = json.loads((tmp_path / "bad-step-3.json").read_text())
    assert kept["clip_ids"] == [f"clip-{r:02}" for r in rows[2]]
    assert kept["captions"] == [made_up.captions()[r] for r in rows[2]] and kept["figures"]["loss"] == "nan"
    assert loop.tally.step == 2


def test_not_a_number_is_left_out_and_counted(tmp_path, monkeypatch):
    loop, _ = poisoned("clip", 3, monkeypatch, on_nan="skip")
    sent = []
    loop.run(made_up.batches(5), lambda figures, step: sent.append(figures), tmp_path)
    assert loop.tally.step == 5 and loop.tally.skips == 1 and sent[-1]["skipped"] == 1
    assert all(torch.isfinite(t).all() for t in model_and_optimiser(loop.named, loop.optimiser).values())


def test_too_many_skips_stop(tmp_path, monkeypatch):
    loop, _ = poisoned("clip", 3, monkeypatch, on_nan="skip", max_skips=0)
    with pytest.raises(WorkError, match="step 3"):
        loop.run(made_up.batches(5), quiet, tmp_path)


def test_a_jump_of_the_loss_is_a_spike_and_a_slow_rise_is_none():
    tally, spikes = Tally(), []
    for step in range(100):
        tally.step = step
        spikes.append(health.is_spike(tally, 2.0 + 0.02 * (step % 3) + 0.001 * step + (5.0 if step == 70 else 0.0)))
    assert spikes[70] and sum(spikes) == 1


def test_published_schedule():
    phase = Phase(name="p", steps=100, warmup_steps=20, schedule="published", end_lr_factor=0.01)
    factors = [optimizer.lr_factor(phase, s) for s in range(100)]
    assert factors[0] == 0.01 and factors[10] == 0.5 and factors[20] == 1.0
    assert factors[60] == pytest.approx(0.5) and min(factors) == 0.01 and factors[99] < 0.011


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


def gradients(accumulate=1, chunk=0, kind="s2", dropout=0.1, **phase):
    """Gradients of one batch of 16, in parts."""
    stage = {"accumulate": accumulate, "grad_cache_chunk": chunk}
    loop = made_up.loop(kind, made_up.phase(kind, **phase), stage, dropout=dropout)
    loop.speed = health.Speed.now()
    batch = next(made_up.batches(1))
    figures = loop._backward(batch)
    return figures, {n: p.grad for n, p in loop.named.items() if p.grad is not None}, loop, batch


def test_parts_of_a_batch_add_up_to_the_mean_of_their_gradients():
    fields = {"vtm": 0.0, "mlm": 0.0, "token_drop": 0.0}
    figures, found, loop, batch = gradients(2, **fields)
    loop.optimiser.zero_grad(set_to_none=True)
    halves = []
    for part in range(2):
        draws = made_up.draws(part, 2)
        draws.noise()
        halves.append(loop.wrapped(loop._inputs(batch, draws), draws, True)["vtc"])
    mean = torch.stack(halves).mean()
    mean.backward()
    assert figures["loss/vtc"] == pytest.approx(mean.item(), rel=1e-6)
    wanted = {n: p.grad for n, p in loop.named.items() if p.grad is not None}
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[n], wanted[n], atol=1e-6) for n in found)


@pytest.mark.parametrize("chunk", [4, 16])
@pytest.mark.parametrize("kind", ["s2", "clip"])
def test_cached_gradients_are_those_of_the_whole_batch(kind, chunk):
    fields = {"vtm": 0.0, "mlm": 0.0} if kind == "s2" else {}
    whole, cached = (gradients(chunk=c, kind=kind, dropout=0.0, **fields)[:2] for c in (0, chunk))
    assert cached[0] == pytest.approx(whole[0], rel=1e-6) and cached[1].keys() == whole[1].keys()
    assert all(torch.allclose(cached[1][n], whole[1][n], atol=1e-5) for n in whole[1])


def test_matching_and_masked_words_of_a_single_chunk_are_those_of_the_batch():
    whole, cached = (gradients(chunk=c, dropout=0.0)[:2] for c in (0, 16))
    assert cached[0].keys() == whole[0].keys() == {"loss", "loss/vtc", "loss/vtm", "loss/mlm"}
    assert cached[0] == pytest.approx(whole[0], rel=1e-6)
    assert all(torch.allclose(cached[1][n], whole[1][n], atol=1e-5) for n in whole[1])


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(UserError, match="16 clips cannot be divided"):
        gradients(3)


def test_blocks_that_compute_twice_give_the_same_gradients():
    from ivcore.train.fit import _fit_memory

    def found(**train):
        loop = made_up.loop("s2", made_up.phase("s2"), **train)
        _fit_memory(loop.model, loop.train)
        loop.speed = health.Speed.now()
        return loop._backward(next(made_up.batches(1))), {n: p.grad for n, p in loop.named.items()}, loop

    plain, twice = found(), found(checkpoint_vision=3, checkpoint_text=True)
    assert twice[2].model.text_encoder.shape.checkpoint_layers and plain[0] == twice[0]
    assert all(torch.equal(plain[1][n], twice[1][n]) for n in plain[1] if plain[1][n] is not None)


def looked(found, stage, tmp_path, steps=8):
    """A loop whose looks at the validation split give `found` in turn."""
    from ivcore.train.loop import Loop

    base = made_up.loop("clip", made_up.phase("clip", steps=steps), stage)
    answers, seen = iter(found), []

    def look(encoder):
        seen.append(digest(encoder.model, loop.named))
        return next(answers)

    loop = Loop(*(getattr(base, n) for n in ("model", "tokenizer", "source", "train", "stage", "phase", "text_len")),
                base.device, look=look)  # fmt: skip
    loop.run(made_up.batches(steps), quiet, tmp_path)
    return loop, seen


def test_no_better_look_ends_the_phase_and_the_best_is_kept(tmp_path):
    stage = {"validate_every": 2, "patience": 2, "keep": "best"}
    loop, seen = looked([10.0, 30.0, 20.0, 30.0, 99.0], stage, tmp_path, steps=12)
    assert loop.tally.step == 8 and loop.tally.best == 30.0 and loop.tally.best_step == 4
    assert digest(loop.model, loop.named) == seen[1] != seen[3]
    assert [r["value"] for r in loop.tally.curves if r["name"] == "val/r1"] == [10.0, 30.0, 20.0, 30.0]


def test_the_last_step_is_kept_unless_asked(tmp_path):
    loop, seen = looked([30.0, 20.0], {"validate_every": 4}, tmp_path)
    assert digest(loop.model, loop.named) == seen[1] and loop.tally.best_step == 4 and loop.tally.step == 8
