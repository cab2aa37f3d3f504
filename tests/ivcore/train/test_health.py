"""What is no number is stopped or left out and named; a jump of the loss is a spike."""

import json

import pytest
import torch

from ivcore.errors import WorkError
from ivcore.train import health
from ivcore.train.state import model_and_optimiser
from ivcore.train.totals import Totals
from tests.ivcore.train import made_up


def quiet(figures, step):
    pass


def poisoned(kind, bad_step, monkeypatch, **train):
    """A loop whose batch at `bad_step` (from 1) is not a number."""
    loop = made_up.loop(kind, made_up.phase(kind, steps=5), **train)
    inputs, rows = loop.backward.inputs, []

    def poison(batch, draws, *asked):
        found = inputs(batch, draws, *asked)
        rows.append(batch.rows)
        if draws.step + 1 == bad_step:
            found.video.fill_(float("nan"))
        return found

    monkeypatch.setattr(loop.backward, "inputs", poison)
    return loop, rows


@pytest.mark.parametrize("kind", ["s2", "clip"])
def test_not_a_number_stops_with_the_batch_on_file(kind, tmp_path, monkeypatch):
    loop, rows = poisoned(kind, 3, monkeypatch)
    with pytest.raises(WorkError, match=r"phase made_up, step 3: .*nan.*bad-step-3\.json.*on_nan=skip"):
        loop.run(made_up.batches(5), quiet, tmp_path)
    kept = json.loads((tmp_path / "bad-step-3.json").read_text())
    assert kept["clip_ids"] == [f"clip-{r:02}" for r in rows[2]]
    assert kept["captions"] == [made_up.captions()[r] for r in rows[2]] and kept["figures"]["loss"] == "nan"
    assert loop.totals.step == 2


def test_not_a_number_is_left_out_and_counted(tmp_path, monkeypatch):
    loop, _ = poisoned("clip", 3, monkeypatch, on_nan="skip")
    sent = []
    loop.run(made_up.batches(5), lambda figures, step: sent.append(figures), tmp_path)
    assert loop.totals.step == 5 and loop.totals.skips == 1 and sent[-1]["skipped"] == 1
    assert all(torch.isfinite(t).all() for t in model_and_optimiser(loop.named, loop.optimiser).values())


def test_too_many_skips_stop(tmp_path, monkeypatch):
    loop, _ = poisoned("clip", 3, monkeypatch, on_nan="skip", max_skips=0)
    with pytest.raises(WorkError, match="step 3"):
        loop.run(made_up.batches(5), quiet, tmp_path)


def test_a_jump_of_the_loss_is_a_spike_and_a_slow_rise_is_none():
    totals, spikes = Totals(), []
    for step in range(100):
        totals.step = step
        loss = 2.0 + 0.02 * (step % 3) + 0.001 * step + (5.0 if step == 70 else 0.0)
        spikes.append(health.is_spike(totals, loss, step))
    assert spikes[70] and sum(spikes) == 1


@pytest.mark.parametrize(("deviations", "step", "spike"), [(5.9, 30, False), (6.1, 30, True), (6.1, 29, False)])
def test_a_spike_stands_six_deviations_above_the_mean_once_the_loss_has_settled(deviations, step, spike):
    totals = Totals(loss_mean=2.0, loss_variance=0.04)
    assert health.is_spike(totals, 2.0 + 0.2 * deviations, step) == spike
    flat = Totals(loss_mean=2.0, loss_variance=0.0)  # a loss that stands still has no deviation to go by
    assert health.is_spike(flat, 2.0 + 1e-3 * deviations, step) == spike
    assert not health.is_spike(Totals(loss_mean=2.0, loss_variance=0.04), 2.0 - 0.2 * deviations, step)
