"""An imported folder as the beginning of a run: strict, by digest, judged as it is or trained on."""

import json
import shutil

import pytest
import torch

from ivcore import config, steps
from ivcore.checkpoints import checkpoint
from ivcore.checkpoints.exporting import export
from ivcore.checkpoints.importing import import_weights
from ivcore.errors import UserError
from ivcore.models import build_clip, build_s2
from ivcore.store.artifacts import Store
from ivcore.text.tokenizer import Tokenizer

WORDS = ["a red square moves right", "two blue circles", "un cuadrado rojo"]
SMALL = [
    "data.synthetic.train_clips=8",
    "data.synthetic.val_clips=4",
    "data.synthetic.test_clips=8",
    "frames.workers=1",
    "train.threads=1",
    "eval.latency_queries=10",
    "eval.bootstrap=100",
    "eval.examples=0",
    "train.s2.phases=[]",
    'train.clip.phases=[{name="pooler", epochs=2, warmup_steps=1, trainable="clip"}]',
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """s2 and clip as `iv import` leaves them, from files as `iv export` writes them."""
    out = {}
    for kind, words, build, seed in (("s2", "bert", build_s2, 77), ("clip", "llama", build_clip, 78)):
        tokenizer = Tokenizer.train(WORDS, 100, words)
        top = tmp_path_factory.mktemp(kind)
        (top / "trained").mkdir()
        checkpoint.save(build("tiny", tokenizer.vocab_size, seed), tokenizer, top / "trained")
        export(top / "trained", top / "published.safetensors")
        out[kind] = top / "imported"
        import_weights([top / "published.safetensors"], f"{kind}-tiny", out[kind], tokenizer=top / "trained")
    return out


@pytest.fixture(scope="module")
def run(folders, tmp_path_factory):
    sets = [*SMALL, *(f"model.{kind}_init={folder}" for kind, folder in folders.items())]
    return Store(tmp_path_factory.mktemp("ws")), config.variants(config.load("demo", sets))[0][2]


def _state(folder):
    return checkpoint.load(folder)[0].state_dict()


def test_the_copy_is_the_folder_and_its_key_is_its_content(folders, run, tmp_path):
    store, c = run
    step = steps.import_checkpoint("s2", c.model, c.frames)
    artifact = steps.run(step, store)
    assert (artifact.path / "model.safetensors").read_bytes() == (folders["s2"] / "model.safetensors").read_bytes()
    facts = artifact.record()["facts"]
    assert facts["params_trained"] == 0 and facts["digest_before"] == facts["digest_after"]
    moved = tmp_path / "elsewhere"
    shutil.copytree(folders["s2"], moved)
    there = c.model.model_copy(update={"s2_init": str(moved)})
    assert steps.import_checkpoint("s2", there, c.frames).key == step.key
    (moved / "model.safetensors").write_bytes((moved / "model.safetensors").read_bytes() + b"x")
    assert steps.import_checkpoint("s2", there, c.frames).key != step.key


def test_both_imported_models_are_judged_and_clip_trains_on(folders, run):
    store, c = run

    def do(step):
        return steps.run(step, store)

    manifest = do(steps.ingest(store, c.data))
    frames = do(steps.decode(store, c.data, c.frames, manifest))
    s2, start = (do(steps.import_checkpoint(kind, c.model, c.frames)) for kind in ("s2", "clip"))
    features = {a.kind: do(steps.featurize(store, c.features, c.train, frames, a)) for a in (s2, start)}
    assert features["s2"].key != features["clip"].key  # two trunks
    phase = c.train.clip.phases[0]
    clip = do(steps.fit_clip(store, c.model, c.train, phase, manifest, features["clip"], start))
    assert clip.record()["facts"]["steps"] == 2  # all 8 clips are one batch
    before, after = _state(folders["clip"]), _state(clip.path)
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert moved and all(n == "temp" or n.startswith("vision_encoder.clip_projector.") for n in moved)
    scores = {
        f"main.0.{a.kind}": do(steps.score(store, c.eval, c.train, manifest, features[a.kind], a)) for a in (s2, clip)
    }
    for wanted in (scores, {"main.0.clip": scores["main.0.clip"]}):  # both, and clip alone
        found = json.loads((do(steps.report(store, c.eval, wanted)).path / "verdict.json").read_text())
        assert {f"main.0.{row['model']}" for row in found["rows"]} == set(wanted)


@pytest.mark.parametrize(
    "kind, change, says",
    [
        ("s2", lambda f: shutil.rmtree(f), "is no folder"),
        ("s2", lambda f: (f / "tokenizer.json").unlink(), "holds no tokenizer.json"),
        ("clip", None, "holds ivflow_s2, not clip"),
        ("s2", "frames", "takes 8 frames of 32 pixels"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(folders, run, tmp_path, kind, change, says):
    _, c = run
    folder = tmp_path / "given"
    shutil.copytree(folders["s2"], folder)
    if callable(change):
        change(folder)
    frames = c.frames.model_copy(update={"num_frames": 4}) if change == "frames" else c.frames
    with pytest.raises(UserError, match=says):
        steps.import_checkpoint(kind, c.model.model_copy(update={f"{kind}_init": str(folder)}), frames)


def test_missing_weights_are_an_error_and_leave_nothing(folders, run, tmp_path):
    from safetensors.torch import load_file, save_file

    store, c = run
    folder = tmp_path / "given"
    shutil.copytree(folders["s2"], folder)
    state = load_file(folder / "model.safetensors")
    del state["temp"]
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    step = steps.import_checkpoint("s2", c.model.model_copy(update={"s2_init": str(folder)}), c.frames)
    with pytest.raises(UserError, match="missing"):
        steps.run(step, store)
    assert store.find("s2", step.key) is None
