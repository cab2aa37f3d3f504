"""Training on a card: what other tests hold on the CPU. Each runs there, too, so that its words are tried."""

import pytest
import torch

from ivcore.train.state import model_and_optimiser
from tests.devices import CUDA, DEVICES
from tests.ivcore.train import made_up

STEPS = 20
CASES = {
    "s2": ("s2", {"token_drop": 0.5}, {}),
    "clip": ("clip", {"trainable": "clip"}, {}),
    "cached": ("s2", {"vtm": 0.0, "mlm": 0.0}, {"grad_cache_chunk": 4}),
    "accumulated": ("clip", {"trainable": "clip"}, {"accumulate": 2}),
}
cases = pytest.mark.parametrize("case", CASES)


def run(case, device, folder, steps=STEPS, **train):
    """The loop after its steps, and the loss of each."""
    kind, fields, stage = CASES[case]
    loop = made_up.loop(kind, made_up.phase(kind, steps=STEPS, **fields), stage, device=device, **train)
    losses, figures = [], loop.backward.figures

    def watched(names, values):
        losses.append(figures(names, values))
        return losses[-1]

    loop.backward.figures = watched
    loop.run((batch for batch, _ in zip(made_up.batches(STEPS), range(steps))), lambda figures, step: None, folder)
    return loop, [one["loss"] for one in losses]


def bytes_of(loop):
    return {name: value.cpu() for name, value in model_and_optimiser(loop.named, loop.optimiser).items()}


@cases
@pytest.mark.parametrize("device", DEVICES)
def test_one_seed_is_one_result_where_sums_are_ordered(case, device, tmp_path):
    first, second = (bytes_of(run(case, device, tmp_path / n, deterministic=True)[0]) for n in "ab")
    assert all(torch.equal(first[name], second[name]) for name in second)


@cases
@pytest.mark.parametrize("device", DEVICES)
def test_it_goes_on_from_its_state(case, device, tmp_path):
    whole = bytes_of(run(case, device, tmp_path / "whole", deterministic=True)[0])
    run(case, device, tmp_path / "parts", steps=11, deterministic=True, save_every_steps=4)
    again, losses = run(case, device, tmp_path / "parts", deterministic=True, save_every_steps=4)
    assert len(losses) == STEPS - 8
    assert all(torch.equal(value, whole[name]) for name, value in bytes_of(again).items())


@cases
@pytest.mark.parametrize("device", [CUDA])
def test_two_runs_whose_sums_are_not_ordered_stay_close(case, device, tmp_path):
    """docs/gpu.md states the bound."""
    first, second = (run(case, device, tmp_path / n)[1] for n in "ab")
    assert second == pytest.approx(first, rel=1e-2)


@pytest.mark.parametrize("case", ["clip", "accumulated"])
@pytest.mark.parametrize("device", [CUDA])
def test_a_card_learns_as_the_cpu_does(case, device, tmp_path):
    """Where nothing is drawn on the device; in float32, whose products are not rounded to tf32."""
    ours, theirs = (run(case, one, tmp_path / one)[1] for one in (device, "cpu"))
    assert ours == pytest.approx(theirs, rel=1e-2)
    assert ours[0] == pytest.approx(theirs[0], rel=1e-4)
