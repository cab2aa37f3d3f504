"""The recipes of the published stages hold the published numbers, and name models there are."""

import pytest

from ivcore import config
from ivcore.errors import UserError
from ivcore.models import load_size

# Source: InternVideo2 multi_modality, scripts/pretraining/{stage2,clip}/SIZE/config.py and run.sh.
#            lr    decay clip epochs warm-up batch frames text
PUBLISHED = {
    "s2_1B": (5e-5, 0.05, 3.0, 10, 1.0, 64 * 64, 4, 32),
    "s2_6B": (5e-5, 0.05, 3.0, 5, 1.0, 256 * 64, 4, 40),
    "clip_1B": (4e-4, 0.2, 0.0, 3, 0.6, 16 * 256, 8, 80),
    "clip_6B": (4e-4, 0.2, 0.0, 1, 0.2, 16 * 128, 8, 80),
    "clip_S14": (4e-4, 0.2, 0.0, 3, 0.6, 16 * 256, 8, 77),
    "clip_B14": (4e-4, 0.2, 0.0, 3, 0.6, 16 * 256, 8, 77),
    "clip_L14": (4e-4, 0.2, 0.0, 3, 0.6, 16 * 256, 8, 77),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers(name):
    run = config.load(name)
    form, _, size = name.partition("_")
    stage = getattr(run.train, form)
    (phase,) = stage.phases
    text_len = run.model.s2_text_len if form == "s2" else run.model.clip_text_len
    found = (stage.lr, stage.weight_decay, stage.grad_clip, phase.epochs, phase.warmup_epochs, stage.batch_size)
    assert (*found, run.frames.num_frames, text_len) == PUBLISHED[name]
    assert stage.betas == (0.9, 0.98) and phase.end_lr_factor == 0.01 and run.train.dtype == "bfloat16"
    assert phase.schedule == "published" and run.train.weights == ("float32" if form == "s2" else "bfloat16")
    assert (run.train.checkpoint_text, run.train.checkpoint_vision) == (size in ("1B", "6B"), 48 * (name == "s2_6B"))
    assert run.model.size == size and run.frames.size_px == load_size(size)["vision"]["image_size"]
    numbers = load_size(size)[form]
    assert numbers["temp"] == {"s2": 0.07, "clip": 0.01}[form]
    if form == "s2":
        losses = (phase.vtc, phase.vtm, phase.mlm, phase.token_drop, phase.image_token_drop)
        assert losses == (1, 1, 1, 0.8, 0.5) and phase.trainable == "all" and numbers["vision"]["num_frames"] == 4
    else:
        assert (phase.vtc, phase.vtm, phase.mlm, phase.token_drop) == (1, 0, 0, 0) and phase.trainable == "clip"
    assert not (run.train.clip if form == "s2" else run.train.s2).phases


def test_every_named_run_parses():
    names = sorted(path.stem for path in config.RUNS.glob("*.toml"))
    assert set(PUBLISHED) | {"demo", "mine", "shapes"} <= set(names)
    for name in names:
        assert config.variants(config.load(name))


def test_epochs_are_counted_out_in_steps():
    phase = config.load("clip_B14").train.clip.phases[0].in_steps(50)
    assert (phase.steps, phase.warmup_steps, phase.epochs, phase.warmup_epochs) == (150, 30, 0, 0)
    assert phase.in_steps(99) == phase
    with pytest.raises(UserError, match="give one of them"):
        config.load("clip_B14", ["train.clip.phases.pooler.steps=5"])
