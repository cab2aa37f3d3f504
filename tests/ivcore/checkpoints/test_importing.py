"""From files as published to a model folder, back, and again: every key in one bin, every byte the same."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

from ivcore.checkpoints import checkpoint
from ivcore.checkpoints.account import BINS, listing, table
from ivcore.checkpoints.exporting import export
from ivcore.checkpoints.importing import import_weights, parse_model
from ivcore.errors import UserError
from ivcore.losses.vtc import vtc_loss
from ivcore.models import S2Model, build_clip, build_s2, clip_config, clip_from_s2
from ivcore.models.freeze import apply_policy, digest, verify
from ivcore.store.known_files import sha256_file
from ivcore.text.tokenizer import Tokenizer

transformers_logging.disable_progress_bar()
ROOT = Path(__file__).parents[3]
NORM = "vision_encoder.clip_projector.norm1_q.weight"


def upstream_s2(model: S2Model) -> dict[str, Tensor]:
    """A state as upstream's files have it: computed buffers, the tied matrix under both names."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    length = model.config.text_shape().max_position_embeddings
    return {**state, "text_encoder.bert.embeddings.position_ids": torch.arange(length)[None]}


def saved(path: Path, state: dict, container: str | None = "module") -> Path:
    torch.save({container: state, "global_steps": 2040} if container else state, path)
    return path


@pytest.fixture(scope="module")
def s2_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("s2") / "s2.safetensors"
    save_file(upstream_s2(build_s2("tiny", 50, seed=1, num_frames=4)), path)
    return path


@pytest.fixture(scope="module")
def clip_files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """What a published clip is made of: a text file with LoRA and leftovers, and a delta."""
    folder, state = tmp_path_factory.mktemp("clip"), build_clip("tiny", 60, seed=2).state_dict()
    text = {n.removeprefix("text_encoder."): t for n, t in state.items() if n.startswith("text_encoder.")}
    base = "transformer.layers.0.self_attn.q_proj"
    text[f"{base}.base_layer.weight"] = text.pop(f"{base}.weight")
    text[f"{base}.lora_A.default.weight"] = torch.full((2, 96), 0.5)
    text[f"{base}.lora_B.default.weight"] = torch.full((96, 2), 0.25)
    text |= {"logit_scale": torch.ones(1), "blocks.0.attn.qkv.weight": torch.ones(1)}
    delta = {n: t + 1 for n, t in state.items() if "clip_projector" in n or n == "temp"}
    delta["text_encoder.transformer.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    for name, part in (("text", text), ("delta", delta)):
        save_file(part, folder / f"{name}.safetensors")
    return [folder / "text.safetensors", folder / "delta.safetensors"]


def bins(record: dict) -> dict[tuple[str, str], str]:
    return {(row["file"], row["key"]): row["bin"] for row in record["keys"]}


# the way in and back


@pytest.mark.parametrize("kind", ["module.pt", "model.pth", "bare.bin", "plain.safetensors", "old.pt"])
def test_s2_in_every_wrapping_is_the_same_model(tmp_path: Path, kind: str) -> None:
    model = build_s2("tiny", 50, seed=1)
    container, path = kind.partition(".")[0], tmp_path / kind
    if path.suffix == ".safetensors":
        save_file(upstream_s2(model), path)
    elif container == "old":
        torch.save(upstream_s2(model), path, _use_new_zipfile_serialization=False)
    else:
        saved(path, upstream_s2(model), None if container == "bare" else container)
    record = import_weights([path], "s2-tiny", tmp_path / "out")
    model.save_pretrained(tmp_path / "expected")
    for name in ("model.safetensors", "config.json"):
        ours, theirs = (
            json.loads(p.read_text()) if p.suffix == ".json" else p.read_bytes()
            for p in (tmp_path / "out" / name, tmp_path / "expected" / name)
        )
        if name == "config.json":
            ours["seed"] = theirs["seed"]
        assert ours == theirs
    counts = record["counts"][kind]
    assert sum(counts.values()) == len(upstream_s2(model)) and counts["ignored"] == 3  # position ids, two tied copies
    assert record == json.loads((tmp_path / "out" / "import.json").read_text())
    assert {p.name for p in tmp_path.iterdir()} == {kind, "out", "expected"}  # nothing left lying about


def test_every_key_is_in_exactly_one_bin(s2_file: Path, clip_files: list[Path], tmp_path: Path) -> None:
    record = import_weights([clip_files[1], s2_file, clip_files[0]], "clip-tiny", tmp_path / "clip")
    given = [s2_file, *clip_files]
    for path in given:
        state = load_file(path)
        rows = [row for row in record["keys"] if row["file"] == path.name]
        assert sorted(row["key"] for row in rows) == sorted(state)
        assert all(row["bin"] in BINS and ("why" in row or row["bin"] == "loaded") for row in rows)
    where = bins(record)
    base = "transformer.layers.0.self_attn.q_proj"
    assert where["text.safetensors", f"{base}.lora_A.default.weight"] == "converted"
    assert where["text.safetensors", "logit_scale"] == "ignored"
    assert where["s2.safetensors", NORM] == "ignored" and where["delta.safetensors", NORM] == "loaded"
    assert where["s2.safetensors", "vision_encoder.pos_embed"] == "converted"
    model = AutoModel.from_pretrained(tmp_path / "clip")
    assert torch.equal(model.get_parameter(NORM), build_clip("tiny", 60, seed=2).get_parameter(NORM) + 1)
    merged = model.get_parameter(f"text_encoder.{base}.weight")
    torch.testing.assert_close(
        merged, build_clip("tiny", 60, seed=2).get_parameter(f"text_encoder.{base}.weight") + 0.5
    )
    assert [s["role"] for s in record["sources"]] == ["delta", "s2", "llama"]
    shown = listing(record)
    assert table(record) in shown and "replaced by delta.safetensors" in shown and "LoRA merged" in shown


def test_entries_that_are_no_tensors(clip_files: list[Path], s2_file: Path, tmp_path: Path) -> None:
    text = {**load_file(clip_files[0]), "grad_norm": 1.5}  # InternVL's file has such leftovers
    record = import_weights([s2_file, saved(tmp_path / "t.pth", text)], "clip-tiny", None)
    assert bins(record)["t.pth", "grad_norm"] == "ignored"
    assert next(s for s in record["sources"] if s["file"] == "t.pth")["beside"] == ["global_steps"]
    state = {**load_file(s2_file), "epoch": 3}
    with pytest.raises(UserError, match=r"1 unexpected in s\.pt: epoch \(of type int, not a tensor\)"):
        import_weights([saved(tmp_path / "s.pt", state)], "s2-tiny", tmp_path / "out")


def test_a_clip_without_a_delta_starts_at_the_sizes_temperature(
    s2_file: Path, clip_files: list[Path], tmp_path: Path
) -> None:
    record = import_weights([s2_file, clip_files[0]], "clip-tiny", tmp_path / "clip")
    assert list(record["started"]) == ["temp"] and "temp" in table(record)
    assert AutoModel.from_pretrained(tmp_path / "clip").temp.item() == pytest.approx(0.07)


@pytest.mark.parametrize("frames", [None, 2, 4, 16])
def test_frames(s2_file: Path, tmp_path: Path, frames: int | None) -> None:
    record = import_weights([s2_file], "s2-tiny", tmp_path / "out", frames=frames)
    model = AutoModel.from_pretrained(tmp_path / "out")
    num = frames or 8
    assert model.vision_encoder.pos_embed.shape == (1, 1 + num // 2 * 16, 96)
    where = bins(record)["s2.safetensors", "vision_encoder.pos_embed"]
    assert where == ("loaded" if num == 4 else "converted")
    with torch.no_grad():
        assert model.encode_video(torch.zeros(1, num, 3, 32, 32))[1].shape == (1, 128)


def test_pixels_and_tables_of_decoders_and_images(tmp_path: Path) -> None:
    model = build_s2("tiny", 50, seed=1)
    state = upstream_s2(model)
    record = import_weights([saved(tmp_path / "s.pt", state)], "s2-tiny", tmp_path / "out", pixels=64)
    assert AutoModel.from_pretrained(tmp_path / "out").vision_encoder.pos_embed.shape == (1, 1 + 4 * 64, 96)
    assert "resized" in next(row["why"] for row in record["keys"] if row["key"] == "vision_encoder.pos_embed")


@pytest.mark.parametrize("form", ["s2", "clip"])
@pytest.mark.parametrize("pth", [False, True])
def test_import_of_the_export_is_the_same_bytes(
    form: str, pth: bool, s2_file: Path, clip_files: list[Path], tmp_path: Path
) -> None:
    files = [s2_file] if form == "s2" else [s2_file, *clip_files]
    import_weights(files, f"{form}-tiny", tmp_path / "a")
    out = tmp_path / ("back.pth" if pth else "back.safetensors")
    found = export(tmp_path / "a", out, pth)
    again = import_weights([out], f"{form}-tiny", tmp_path / "b")
    assert sha256_file(tmp_path / "a/model.safetensors") == sha256_file(tmp_path / "b/model.safetensors")
    assert sum(again["counts"][out.name].values()) == found["entries"]
    names = set(torch.load(out, weights_only=True) if pth else load_file(out))
    model = (build_s2 if form == "s2" else build_clip)("tiny", 60, seed=0)
    assert names == set(model.state_dict())  # both names of a tied tensor, as upstream


def test_a_trained_checkpoint_goes_out_and_comes_back(tmp_path: Path) -> None:
    model = build_clip("tiny", 60, seed=3)
    model.save_pretrained(tmp_path / "a")
    export(tmp_path / "a", tmp_path / "a.safetensors")
    import_weights([tmp_path / "a.safetensors"], "clip-tiny", tmp_path / "b")
    assert sha256_file(tmp_path / "a/model.safetensors") == sha256_file(tmp_path / "b/model.safetensors")


def test_half_precision_stays_as_it_is(tmp_path: Path) -> None:
    state = {n: t.bfloat16() if t.is_floating_point() else t for n, t in upstream_s2(build_s2("tiny", 50, 1)).items()}
    import_weights([saved(tmp_path / "s.pt", state)], "s2-tiny", tmp_path / "out")
    assert {t.dtype for t in load_file(tmp_path / "out/model.safetensors").values()} == {torch.bfloat16}
    assert AutoModel.from_pretrained(tmp_path / "out").dtype == torch.bfloat16
    export(tmp_path / "out", tmp_path / "back.safetensors")
    import_weights([tmp_path / "back.safetensors"], "s2-tiny", tmp_path / "again")
    assert sha256_file(tmp_path / "out/model.safetensors") == sha256_file(tmp_path / "again/model.safetensors")
    Tokenizer.train(["a red ball"], 50, "bert").save(tmp_path / "out")
    assert checkpoint.load(tmp_path / "out")[0].dtype == torch.float32


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(tmp_path: Path, suffix: str) -> None:
    state = upstream_s2(build_s2("tiny", 50, seed=1))
    names, folder = sorted(state), tmp_path / "sharded"
    folder.mkdir()
    shards = {f"w-{i}.{suffix}": {n: state[n] for n in names[i::2]} for i in range(2)}
    for name, part in shards.items():
        save_file(part, folder / name) if suffix == "safetensors" else torch.save(part, folder / name)
    index = {"weight_map": {n: name for name, part in shards.items() for n in part}}
    (folder / f"w.{suffix}.index.json").write_text(json.dumps(index))
    for i, given in enumerate((folder, folder / f"w.{suffix}.index.json")):
        record = import_weights([given], "s2-tiny", tmp_path / f"out{i}")
        assert [f["name"] for f in record["sources"][0]["files"]] == sorted(shards)
    (folder / f"w-1.{suffix}").unlink()
    with pytest.raises(UserError, match=r"w-1.* is missing, one of 2 shards"):
        import_weights([folder], "s2-tiny", tmp_path / "out")


def test_the_same_import_twice_is_one_and_another_is_refused(s2_file: Path, tmp_path: Path) -> None:
    first = import_weights([s2_file], "s2-tiny", tmp_path / "deep/out")
    made = (tmp_path / "deep/out/model.safetensors").stat().st_mtime_ns
    assert import_weights([s2_file], "s2-tiny", tmp_path / "deep/out") == first
    assert (tmp_path / "deep/out/model.safetensors").stat().st_mtime_ns == made
    with pytest.raises(UserError, match="is there already"):
        import_weights([s2_file], "s2-tiny", tmp_path / "deep/out", frames=4)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="is there already"):
        import_weights([s2_file], "s2-tiny", tmp_path / "mine")


def test_files_of_one_name_are_told_apart(s2_file: Path, clip_files: list[Path], tmp_path: Path) -> None:
    for folder, path in zip("abc", [s2_file, *clip_files], strict=True):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "model.safetensors").write_bytes(path.read_bytes())
    paths = [tmp_path / folder / "model.safetensors" for folder in "abc"]
    record = import_weights(paths, "clip-tiny", tmp_path / "out")
    assert list(record["counts"]) == [f"{folder}/model.safetensors" for folder in "abc"]


def test_what_a_dead_process_left_is_swept(s2_file: Path, tmp_path: Path) -> None:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    left = tmp_path / f".out.{os.uname().nodename}.{done.pid}.tmp"
    left.mkdir()
    import_weights([s2_file], "s2-tiny", tmp_path / "out")
    assert {p.name for p in tmp_path.iterdir()} == {"out"}


# tokenizer and card


def test_tokenizer_is_kept_and_another_is_refused(s2_file: Path, clip_files: list[Path], tmp_path: Path) -> None:
    words = Tokenizer.train(["a red ball rolls to the left of the blue box"] * 3, 50, "bert")
    state = upstream_s2(build_s2("tiny", words.vocab_size, seed=1))
    (tmp_path / "t").mkdir()
    words.save(tmp_path / "t")
    import_weights([saved(tmp_path / "s.pt", state)], "s2-tiny", tmp_path / "out", tokenizer=tmp_path / "t")
    model, found = checkpoint.load(tmp_path / "out")
    assert found.sha256 == words.sha256 == model.config.tokenizer_sha256
    Tokenizer.train(["ein roter ball rollt links von der blauen kiste vorbei"] * 3, 50, "bert").save(tmp_path / "out")
    with pytest.raises(UserError, match=r"tokenizer\.json .* trained with"):
        checkpoint.load(tmp_path / "out")
    with pytest.raises(UserError, match="of kind bert"):
        import_weights([s2_file, clip_files[0]], "clip-tiny", tmp_path / "no", tokenizer=tmp_path / "t/tokenizer.json")
    with pytest.raises(UserError, match="pieces"):
        import_weights([s2_file], "s2-tiny", tmp_path / "no", tokenizer=tmp_path / "t")
    with pytest.raises(UserError, match="no tokenizer"):
        import_weights([s2_file], "s2-tiny", tmp_path / "no", tokenizer=tmp_path / "nowhere")
    assert not (tmp_path / "no").exists()


def test_card(s2_file: Path, clip_files: list[Path], tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    import_weights([s2_file, *clip_files], "clip-tiny", tmp_path / "clip")
    card = ModelCard.load(tmp_path / "clip/README.md")
    assert card.data.library_name == "transformers" and "internvideo2" in card.data.tags
    for path in (s2_file, *clip_files, tmp_path / "clip/model.safetensors"):
        assert sha256_file(path) in card.text
    code = card.text.split("```python\n")[1].split("```")[0].replace("this folder", str(tmp_path / "clip"))
    subprocess.run([sys.executable, "-c", f"{code}\nassert vector.shape == (1, 128)"], check=True, cwd=ROOT)


def test_names_of_models() -> None:
    assert parse_model("s2-1B") == ("s2", "1B") and parse_model("clip-tiny") == ("clip", "tiny")
    for wrong in ("s2", "s3-1B", "clip-2B"):
        with pytest.raises(UserError, match="clip-B14"):
            parse_model(wrong)


# the whole way: import, three steps of clip, export, import


def assert_whole_way(
    folder: Path, s2_path: Path, size: str, vocab: int | None, clip: dict, pixels: int, frames: int
) -> None:
    record = import_weights([s2_path], f"s2-{size}", folder / "s2", frames=frames)
    assert not any(bins["missing"] or bins["unexpected"] for bins in record["counts"].values())
    s2 = AutoModel.from_pretrained(folder / "s2")
    model = clip_from_s2(s2, clip_config(size, vocab, num_frames=frames, **clip), seed=0)
    del s2
    trained = apply_policy(model, "clip")
    frozen = sorted(set(dict(model.named_parameters())) - set(trained))
    before = digest(model, frozen), digest(model, trained)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    video = torch.randn(2, frames, 3, pixels, pixels, generator=generator)
    ids = torch.tensor([[1, 5, 9, 2], [1, 7, 8, 49]])
    model.train()
    for _ in range(3):
        model.clamp_temp()
        loss = vtc_loss(model.encode_video(video), model.encode_text(ids), model.temp, torch.arange(2))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    verify(model, "clip")
    assert digest(model, frozen) == before[0] and digest(model, trained) != before[1]
    model.save_pretrained(folder / "tuned")
    export(folder / "tuned", folder / "tuned.safetensors")
    again = import_weights([folder / "tuned.safetensors"], f"clip-{size}", folder / "again", frames=frames)
    assert again["counts"]["tuned.safetensors"] == {**dict.fromkeys(BINS, 0), "loaded": len(model.state_dict())}
    assert sha256_file(folder / "tuned/model.safetensors") == sha256_file(folder / "again/model.safetensors")
    assert digest(AutoModel.from_pretrained(folder / "again"), frozen) == before[0]


def test_the_whole_way_tiny(s2_file: Path, tmp_path: Path) -> None:
    assert_whole_way(tmp_path, s2_file, "tiny", 60, {}, pixels=32, frames=8)


def test_a_small_clip_from_tower_text_and_delta(tmp_path: Path) -> None:
    """S14 as published: a distilled tower without prefix, Apple's text tower, a delta of 19 tensors."""
    state = build_clip("S14", None, seed=4).state_dict()
    tower = {n.removeprefix("vision_encoder."): t for n, t in state.items() if n.startswith("vision_encoder.")}
    left = {"clip_pos_embed": tower["pos_embed"].clone(), "clip_decoder.0.head.0.weight": torch.ones(2)}
    text = {n: t for n, t in state.items() if n.startswith("text_encoder.")}
    delta = {n: t.bfloat16() for n, t in state.items() if re.search(r"clip_projector|vision_align|^temp$", n)}
    files = {"tower": {**tower, **left}, "text": {**text, "image_encoder.x": torch.ones(1)}, "delta": delta}
    for name, part in files.items():
        save_file(part, tmp_path / f"{name}.safetensors")
    paths = [tmp_path / f"{name}.safetensors" for name in files]
    record = import_weights(paths, "clip-S14", tmp_path / "clip")
    assert len(delta) == 19 and [s["role"] for s in record["sources"]] == ["tower", "mobileclip", "delta"]
    num = {"tower": len(tower) - 14, "text": len(text), "delta": 19}
    for name, count in num.items():
        found = record["counts"][f"{name}.safetensors"]
        assert found["loaded"] + found["converted"] == count
        assert sum(found.values()) == len(files[name])
    saved = load_file(tmp_path / "clip/model.safetensors")
    assert saved.keys() == state.keys() and saved["temp"].dtype == torch.bfloat16
    assert torch.equal(AutoModel.from_pretrained(tmp_path / "clip").vision_encoder.pos_embed, tower["pos_embed"])
    with pytest.raises(UserError, match=r"4 missing: vision_align\.0"):
        import_weights(paths[:2], "clip-S14", tmp_path / "no")
    record = import_weights(paths, "clip-S14", None, frames=4)
    assert "resized" in next(row["why"] for row in record["keys"] if row["key"] == "pos_embed")


@pytest.mark.slow
def test_the_whole_way_b14(tmp_path: Path) -> None:
    model = build_s2("B14", None, seed=0)
    torch.save({"module": upstream_s2(model)}, tmp_path / "s2.pt")
    del model
    assert_whole_way(tmp_path, tmp_path / "s2.pt", "B14", None, {}, pixels=224, frames=2)


@pytest.mark.slow
def test_peak_memory_b14() -> None:
    """Of the process that imports and of the one that reads the pickle, each above its own start."""
    from benchmarks.bench_models import memory

    rows = {row["name"]: row for row in memory()}
    for name in ("memory_import_B14", "memory_import_reader_B14"):
        assert rows[name]["ours"] <= 1.3 * rows[name]["baseline"], rows[name]
