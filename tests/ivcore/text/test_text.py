"""Caption clean-up, tokenizers and frame sampling: literals, and upstream's recordings where they are at hand."""

import doctest
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ivcore.errors import UserError
from ivcore.text import tokenizer as module
from ivcore.text.cleaning import pre_text
from ivcore.text.tokenizer import Tokenizer
from ivcore.video.frames import normalise
from ivcore.video.resize import resize
from ivcore.video.sampling import middle

FOLDER = (Path(__file__).parents[3] / "../shared/fixtures/upstream_parity").resolve()
needs_recordings = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"no recordings in {FOLDER}")
CAPTIONS = ["a red cross moves up", "A blue circle moves up!", "una cruz sube", "红色十字上移", "a red crossing"]


@pytest.fixture(scope="module")
def recorded() -> dict:
    return json.loads((FOLDER / "data_io.json").read_text())


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return load_file(FOLDER / "data_io.safetensors")


EXAMPLES = ("text.cleaning", "text.wordpieces", "video.sampling", "video.decode_file")


@pytest.mark.parametrize("name", [*EXAMPLES, "datasets.shapes.scenes", "datasets.shapes.wording"])
def test_examples_in_docstrings(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"ivcore.{name}"))
    assert result.attempted >= 1 and result.failed == 0


@pytest.mark.parametrize(
    ("num_in_file", "num", "indices"),
    [
        (16, 8, [0, 2, 4, 6, 8, 10, 12, 14]),
        (30, 4, [3, 10, 18, 25]),
        (9, 4, [0, 2, 4, 7]),
        (8, 8, list(range(8))),
        (1, 3, [0, 0, 0]),
        (2, 4, [0, 1, 1, 1]),
        (100, 1, [49]),
    ],
)
def test_middle(num_in_file: int, num: int, indices: list[int]) -> None:
    out = middle(num_in_file, num)
    assert out == indices and all(type(i) is int for i in out)


def test_middle_wants_a_frame() -> None:
    with pytest.raises(ValueError, match="8 of 0"):
        middle(0, 8)


@pytest.mark.parity
@needs_recordings
def test_middle_as_recorded(recorded: dict) -> None:
    cases = [c for c in recorded["results"]["get_frame_indices"] if c["args"]["sample"] == "middle"]
    cases = [c for c in cases if "fix_start" not in c["args"]]  # another rule
    assert len(cases) >= 40
    for case in cases:
        assert middle(case["args"]["vlen"], case["args"]["num_frames"]) == case["indices"]


@pytest.mark.parity
@needs_recordings
def test_pre_text_as_recorded(recorded: dict) -> None:
    cases = [c for c in recorded["results"]["pre_text"] if c["max_l"] is None]
    assert [pre_text(c["text"]) for c in cases] == [c["result"] for c in cases] and len(cases) >= 4


def test_pre_text_touches_ascii_punctuation_only() -> None:
    assert pre_text("  A-B/c (D); 圆形，静止。 \n") == "a b c d 圆形，静止。"


@pytest.mark.parity
@needs_recordings
@pytest.mark.parametrize("name", ["up", "down", "same"])
@pytest.mark.parametrize("antialias", [True, False])
def test_resize_and_normalise_as_recorded(tensors: dict, name: str, antialias: bool) -> None:
    label = "antialias" if antialias else "no_antialias"
    small = torch.from_numpy(resize(tensors[f"in/frames_{name}"].permute(0, 2, 3, 1).numpy(), 56, antialias))
    assert torch.equal(small.permute(0, 3, 1, 2), tensors[f"out/{name}/resized_uint8_{label}"])
    torch.testing.assert_close(normalise(small[None])[0], tensors[f"out/{name}/{label}"], rtol=0, atol=1e-6)


@pytest.mark.parity
@needs_recordings
def test_bert_ids_as_recorded(recorded: dict, tensors: dict) -> None:
    about = recorded["config"]["tokenizers"]
    vocab = {piece: n for n, piece in enumerate(about["bert_vocab"])}
    tokenizer = Tokenizer(module.wordpieces_of(vocab, "bert"))
    lists = tokenizer.ids(about["texts"], about["max_txt_l"])
    padded = [ids + [0] * (about["max_txt_l"] - len(ids)) for ids in lists]
    assert torch.equal(torch.tensor(padded), tensors["out/bert_tokens/input_ids"])
    assert tokenizer.special_ids == (0, 100, 101, 102, 103) and tokenizer.mask_id == 103


def test_bert_rules() -> None:
    tokenizer = Tokenizer.train(CAPTIONS, 200, "bert")
    piece = tokenizer.backend.id_to_token
    ids, mask = tokenizer.encode(["A red, CROSS", "红色十字", "naïveQ"], 32)
    assert ids.dtype == mask.dtype == torch.int64
    assert [piece(i) for i in ids[0].tolist()] == ["[CLS]", "a", "red", "cross", "[PAD]"]  # no [SEP]
    assert [piece(i) for i in ids[1].tolist()] == ["[CLS]", "红", "色", "十", "字"]
    assert ids[2].tolist() == [2, 1, 0, 0, 0] and mask[2].tolist() == [1, 1, 0, 0, 0]  # a word of unknown characters
    assert tokenizer.special_ids == (0, 1, 2, 3, 4) and tokenizer.mask_id == 4
    cut, _ = tokenizer.encode(["a red cross moves up"], 4)
    assert [piece(i) for i in cut[0].tolist()] == ["[CLS]", "a", "red", "cross"]


def test_llama_rules() -> None:
    tokenizer = Tokenizer.train(CAPTIONS, 200, "llama")
    piece = tokenizer.backend.id_to_token
    ids, mask = tokenizer.encode(["A red: cross", "a"], 32)
    whole = ["<s>", "summarize", ":", "a", "red", "cross", "</s>"]
    assert [piece(i) for i in ids[0].tolist()] == whole
    assert ids[1].tolist()[-2:] == [0, 0] and mask.sum(1).tolist() == [7, 5]
    cut, _ = tokenizer.encode(["a red cross"], 5)
    assert [piece(i) for i in cut[0].tolist()] == ["<s>", "summarize", ":", "a", "</s>"]
    assert tokenizer.special_ids == (0, 1, 2) and tokenizer.mask_id is None


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_training_gives_the_same_bytes_in_another_process(kind: str, tmp_path: Path) -> None:
    mine = Tokenizer.train(CAPTIONS, 60, kind)
    code = f"from ivcore.text.tokenizer import Tokenizer; print(Tokenizer.train({CAPTIONS!r}, 60, {kind!r}).sha256)"
    root = Path(module.__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == mine.sha256
    mine.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert (again.sha256, again.kind, again.vocab_size) == (mine.sha256, kind, 60)
    assert torch.equal(again.encode(CAPTIONS, 9)[0], mine.encode(CAPTIONS, 9)[0])


def test_a_missing_or_damaged_tokenizer_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tokenizer at"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="is no tokenizer"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="not one word"):
        Tokenizer.train([], 50, "bert")


def test_clip_byte_pairs_are_padded_to_the_full_length() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    pieces = ["!", "a", "b", "ab", "<|startoftext|>", "<|endoftext|>"]
    vocab = {piece: n for n, piece in enumerate(pieces)}
    tokenizer = Tokenizer(Backend(models.BPE(vocab, [("a", "b")])))
    assert tokenizer.kind == "clip_bpe" and tokenizer.mask_id is None
    ids, mask = tokenizer.encode(["Ab", "aaaaaaaa"], 6)
    assert ids.tolist() == [[4, 3, 5, 0, 0, 0], [4, 1, 1, 1, 1, 5]]  # the end stays, and is the highest id
    assert mask.tolist() == [[1, 1, 1, 0, 0, 0], [1] * 6]
