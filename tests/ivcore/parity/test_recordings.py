"""Our models against recordings of upstream's own code; skipped where the recordings are not at hand."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ivcore.errors import UserError
from ivcore.parity.published_names import TOPIC as NAMES
from ivcore.parity.recording import FORWARD_BOUND, GRADIENT_BOUND, compare
from ivcore.parity.run import run_cases, topics
from tests.ivcore.parity import made_up

FOLDER = (Path(__file__).parents[3] / "../shared/fixtures/upstream_parity").resolve()
KEPT = Path(__file__).parent / "recordings"
needs_recordings = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recordings in {FOLDER}")


@pytest.mark.parity
@needs_recordings
@pytest.mark.parametrize("topic", [*topics(), NAMES])
def test_topic(topic: str) -> None:
    results = run_cases(FOLDER, topic)
    assert len(results) >= 10
    assert [r for r in results if not r.ok] == []


@pytest.mark.parity
@needs_recordings
@pytest.mark.parametrize(
    ("topic", "name"),
    [
        ("s2_vision", "state/blocks.1.attn.q_norm.weight"),
        ("s2_text", "state/bert.encoder.layer.3.crossattention.self.value.bias"),
        ("mobileclip_text", "state_causal/final_layer_norm.bias"),
        ("llama_text", "state_lora/transformer.layers.0.self_attn.v_proj.lora_B.default.weight"),
        ("s2_to_clip", "in/s2/vision_encoder.pos_embed"),
    ],
)
def test_one_wrong_weight_shows(topic: str, name: str, tmp_path: Path) -> None:
    tensors = load_file(FOLDER / f"{topic}.safetensors")
    tensors[name] = tensors[name] * 1.01
    save_file(tensors, tmp_path / f"{topic}.safetensors")
    (tmp_path / f"{topic}.json").write_text((FOLDER / f"{topic}.json").read_text())
    assert any(not r.ok for r in run_cases(tmp_path))


@pytest.mark.parity
@needs_recordings
def test_what_nobody_compares_is_reported(tmp_path: Path) -> None:
    tensors = load_file(FOLDER / "s2_vision.safetensors")
    save_file({**tensors, "out/video/new": torch.ones(1)}, tmp_path / "s2_vision.safetensors")
    (tmp_path / "s2_vision.json").write_text((FOLDER / "s2_vision.json").read_text())
    assert [r.case for r in run_cases(tmp_path) if not r.ok] == ["video/new"]


@pytest.mark.parity
@needs_recordings
def test_a_broken_topic_is_a_result(tmp_path: Path) -> None:
    about = json.loads((FOLDER / "s2_text.json").read_text())
    del about["config"]["model"]["hidden_size"]
    (tmp_path / "s2_text.json").write_text(json.dumps(about))
    save_file(load_file(FOLDER / "s2_text.safetensors"), tmp_path / "s2_text.safetensors")
    (only,) = [r for r in run_cases(tmp_path) if not r.ok and "stopped" in r.note]
    assert "hidden_size" in only.note


@pytest.mark.parametrize(("topic", "least"), [("s2_full", 380), ("data_io", 15), (NAMES, 20)])
def test_the_recordings_that_come_with_the_tests(topic: str, least: int) -> None:
    """A part of them, small enough to be kept: the whole s2 model, captions and tokens, names of published sizes."""
    results = run_cases(KEPT, topic)
    assert [r for r in results if not r.ok] == [] and len(results) >= least
    assert sum(file.stat().st_size for file in KEPT.iterdir()) < 2_000_000


@pytest.mark.parametrize("seed", [0, 7])
@pytest.mark.parametrize(
    ("weights", "sizes"),
    [
        ({"vtc": 1.0, "vtm": 1.0, "mlm": 1.0}, {}),
        ({"vtc": 0.5, "vtm": 3.0, "mlm": 0.25}, {"depth": 3, "width": 32, "heads": 4, "frames": 4}),
        ({"vtc": 2.0, "vtm": 0.0, "mlm": 1.0}, {"layers": 4, "hidden": 24}),
        ({"vtc": 0.0, "vtm": 1.0, "mlm": 0.5}, {"depth": 1}),
        ({"vtc": 1.0, "vtm": 2.0, "mlm": 0.0}, {"width": 64, "heads": 2}),
    ],
)
def test_recordings_of_other_weights_sizes_and_seeds(weights, sizes, seed, tmp_path: Path) -> None:
    about = made_up.write(tmp_path, weights, seed, **sizes)
    results = run_cases(tmp_path)
    assert [r for r in results if not r.ok] == [] and sum(r.case.startswith("forward") for r in results) > 100
    for name in weights:
        about["config"]["criterion"]["loss_weight"][name] += 0.5  # said, but not so recorded
        (tmp_path / "s2_full.json").write_text(json.dumps(about))
        assert {f"forward/loss_{name}", f"forward_masked/loss_{name}"} <= {
            r.case for r in run_cases(tmp_path) if not r.ok
        }


@pytest.mark.parametrize(
    ("place", "name", "value"),
    [
        ("model.vision_encoder", "qkv_bias", True),
        ("model.text_encoder.bert_config", "hidden_act", "relu"),
        ("criterion.loss_weight", "uta", 1.0),
        ("criterion.loss_weight", "vcc", 0.5),
        ("criterion", "vtm_hard_neg", False),
        ("model", "freeze_vision", True),
    ],
)
def test_a_setting_that_is_not_understood_is_refused_by_its_name(place, name, value, tmp_path: Path) -> None:
    about = made_up.write(tmp_path, {"vtc": 1.0, "vtm": 1.0, "mlm": 1.0})
    branch = about["config"]
    for part in place.split("."):
        branch = branch[part]
    branch[name] = value
    (tmp_path / "s2_full.json").write_text(json.dumps(about))
    (only,) = [r for r in run_cases(tmp_path) if "stopped" in r.note]
    assert not only.ok and f"{place}.{name} = {value!r} is not" in only.note


def test_compare() -> None:
    one = torch.tensor([1.0, -2.0])
    assert compare("t", "x", one, one).ok
    off = compare("t", "x", one + 1e-4, one)
    assert not off.ok and off.bound == FORWARD_BOUND and off.max_rel == pytest.approx(5e-5, rel=1e-2)
    assert compare("t", "grad/x", one + 1e-4, one).ok and compare("t", "grad/x", one, one).bound == GRADIENT_BOUND
    assert not compare("t", "x", one * float("nan"), one).ok
    assert not compare("t", "x", one[:1], one).ok
    assert not compare("t", "names", ["a"], ["a", "b"]).ok


def test_folder_without_recordings(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="s2_vision"):
        run_cases(tmp_path)
