"""A checkpoint knows its tokenizer."""

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ivcore.checkpoints import checkpoint
from ivcore.errors import UserError
from ivcore.models import build_clip, build_s2
from ivcore.text.tokenizer import Tokenizer


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_a_checkpoint_refuses_another_tokenizer(tmp_path: Path, kind: str) -> None:
    own = Tokenizer.train(["a red ball rolls to the left"] * 3, 40, kind)
    other = Tokenizer.train(["ein roter ball rollt nach links"] * 3, 40, kind)
    model = (build_s2 if kind == "bert" else build_clip)("tiny", own.vocab_size, seed=0)
    (tmp_path / "plain").mkdir()
    model.save_pretrained(tmp_path / "plain")
    (tmp_path / "saved").mkdir()
    checkpoint.save(model, own, tmp_path / "saved")
    assert json.loads((tmp_path / "saved/config.json").read_text())["tokenizer_sha256"] == own.sha256
    weights, plain = (load_file(tmp_path / name / "model.safetensors") for name in ("saved", "plain"))
    assert weights.keys() == plain.keys()
    again, tokenizer = checkpoint.load(tmp_path / "saved")
    assert again.config.tokenizer_sha256 == tokenizer.sha256 == own.sha256
    other.save(tmp_path / "saved")
    with pytest.raises(UserError, match=r"tokenizer\.json .* was trained with") as caught:
        checkpoint.load(tmp_path / "saved")
    assert "\n" not in str(caught.value)
    other.save(tmp_path / "plain")  # a model that names none takes any
    assert checkpoint.load(tmp_path / "plain")[1].sha256 == other.sha256
