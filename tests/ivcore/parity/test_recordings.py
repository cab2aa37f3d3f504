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

FOLDER = (Path(__file__).parents[3] / "../shared/fixtures/upstream_parity").resolve()
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
