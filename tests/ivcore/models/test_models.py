"""Whole models: sizes, seeds, saving and loading, strictness, half precision, from s2 to clip."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from ivcore.errors import UserError
from ivcore.models import (
    ClipModel,
    S2Model,
    build_clip,
    build_s2,
    clip_config,
    clip_from_s2,
    load_size,
    size_names,
)
from ivcore.models.base import load_strict
from ivcore.models.config import with_bert

IDS = torch.tensor([[1, 5, 9, 2, 0, 0], [1, 7, 8, 9, 4, 2]])


def video(num: int = 2) -> torch.Tensor:
    return torch.randn(num, 8, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def outputs(model: S2Model | ClipModel) -> list[torch.Tensor]:
    with torch.no_grad():
        if isinstance(model, ClipModel):
            return [model.encode_video(video()), model.encode_text(IDS)]
        tokens, pooled = model.encode_video(video())
        states = model.encode_text(IDS, IDS > 0)
        logits = model.match(states, IDS > 0, model.video_kv(tokens), torch.tensor([1, 0]))
        return [tokens, model.project_video(pooled), model.project_text(states), logits, model.mlm_logits(states)]


def stirred(model: S2Model | ClipModel) -> S2Model | ClipModel:
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.02)
    return model.eval()


@pytest.fixture(params=["s2", "clip"])
def model(request: pytest.FixtureRequest) -> S2Model | ClipModel:
    return stirred((build_s2 if request.param == "s2" else build_clip)("tiny", 50, seed=0))


# sizes

PUBLISHED = {  # tower parameters in clip form at 8 frames, and its tensors
    "S14": (23_043_840, 174),
    "B14": (89_438_976, 174),
    "L14": (308_929_280, 330),
    "1B": (1_020_708_608, 538),
    "6B": (5_941_735_168, 642),
}


def vocabulary(size: str, model: str) -> int | None:
    """A made-up vocabulary for a size whose file gives none (it is trained on the captions)."""
    return None if "vocab_size" in load_size(size)[model]["text"] else 100


@pytest.mark.parametrize("size", size_names())
def test_every_size_builds(size: str) -> None:
    with torch.device("meta"):
        s2, clip = build_s2(size, vocabulary(size, "s2"), seed=0), build_clip(size, vocabulary(size, "clip"), seed=0)
    if size in PUBLISHED:
        tower = clip.vision_encoder
        assert (sum(p.numel() for p in tower.parameters()), len(tower.state_dict())) == PUBLISHED[size]
        assert clip.config.temp == 0.01 and s2.config.temp == 0.07
    if size == "1B":
        assert sum(p.numel() for p in s2.parameters()) == 1_410_146_493
    if size == "6B":
        assert s2.state_dict()["av_concat_vision_proj.0.weight"].shape == (768, 3200)


def test_unknown_sizes_numbers_and_vocabulary() -> None:
    with pytest.raises(UserError, match="tiny"):
        load_size("huge")
    with pytest.raises(UserError, match="vocab_size"):
        build_s2("tiny", None, seed=0)
    with pytest.raises(UserError, match="colour"):
        build_s2("tiny", 50, seed=0, colour=3)
    with pytest.raises(UserError, match="patch_size"):
        build_clip("tiny", 50, seed=0, image_size=30)
    assert build_s2("tiny", 50, seed=0, num_frames=4, embed_dim=16, dropout=0.3).config.text["dropout"] == 0.3


# seeds


def test_seed_decides_and_the_global_generator_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    a, b, c = (build_s2("tiny", 50, seed=s) for s in (0, 0, 1))
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(5)
    for name, value in a.state_dict().items():
        assert torch.equal(value, b.state_dict()[name]), name
    assert not torch.equal(a.vision_encoder.blocks[0].attn.qkv.weight, c.vision_encoder.blocks[0].attn.qkv.weight)
    assert all(p.isfinite().all() for p in [*a.parameters(), *build_clip("tiny", 50, seed=0).parameters()])


def test_start_is_as_the_table_says() -> None:
    m = build_s2("tiny", 50, seed=0, init_std=0.02)
    v = m.vision_encoder
    assert v.blocks[0].attn.qkv.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert v.blocks[2].mlp.fc2.weight.std().item() == pytest.approx(0.02 / 6**0.5, rel=0.05)
    assert (v.blocks[0].norm1.weight == 1).all() and (v.blocks[0].ls1.gamma == 1).all()
    assert (v.clip_projector.norm1_q.weight == 1).all() and (v.clip_projector.cross_attn.q_bias == 0).all()
    layer = m.text_encoder.bert.layers()[3]
    assert (layer.crossattention.output.LayerNorm.weight == 1).all() and (layer.output.dense.bias == 0).all()
    assert (m.text_encoder.bert.embeddings.word_embeddings.weight[0] == 0).all()
    clip = build_clip("tiny", 50, seed=0)
    assert (clip.text_encoder.transformer.layers[0].input_layernorm.weight == 1).all()
    assert (clip.text_encoder.transformer.norm.weight == 1).all()
    small = build_clip("S14", 300, seed=0, depth=1, num_hidden_layers=1)
    for norm in (small.vision_align[0], small.text_encoder.transformer[0].pre_norm_mha["0"]):
        assert (norm.weight == 1).all()


# saving and loading


def test_roundtrip_in_a_fresh_process(model: S2Model | ClipModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path / "m")
    assert {f.name for f in (tmp_path / "m").iterdir()} == {"config.json", "model.safetensors"}
    save_file({str(i): t for i, t in enumerate(outputs(model))}, tmp_path / "expected.safetensors")
    save_file({"video": video(), "ids": IDS}, tmp_path / "in.safetensors")
    script = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file
from transformers import AutoModel
import ivcore.models
folder = Path(sys.argv[1]); given = load_file(folder / "in.safetensors")
model = AutoModel.from_pretrained(folder / "m"); ids, video = given["ids"], given["video"]
assert not model.training
with torch.no_grad():
    if type(model).__name__ == "ClipModel":
        out = [model.encode_video(video), model.encode_text(ids)]
    else:
        tokens, pooled = model.encode_video(video); states = model.encode_text(ids, ids > 0)
        logits = model.match(states, ids > 0, model.video_kv(tokens), torch.tensor([1, 0]))
        out = [tokens, model.project_video(pooled), model.project_text(states), logits, model.mlm_logits(states)]
for name, expected in load_file(folder / "expected.safetensors").items():
    assert torch.equal(out[int(name)], expected), name
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, cwd=Path(__file__).parents[3])


def test_config_roundtrip_names_the_numbers(model: S2Model | ClipModel, tmp_path: Path) -> None:
    model.config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    assert type(again) is type(model.config)
    assert again.vision_shape() == model.config.vision_shape() and again.text_shape() == model.config.text_shape()
    assert json.loads((tmp_path / "config.json").read_text())["vision"]["width"] == 96


@pytest.mark.parametrize("spoil", ["missing", "unexpected", "shape"])
def test_loading_is_strict(model: S2Model | ClipModel, tmp_path: Path, spoil: str) -> None:
    model.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = "vision_encoder.clip_projector.norm1_q.weight"
    if spoil == "missing":
        del state[name]
    elif spoil == "unexpected":
        name = "vision_encoder.head.weight"
        state[name] = torch.zeros(2)
    else:
        state[name] = torch.zeros(5)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=name) as caught:
        AutoModel.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=name):
        load_strict(model, {**model.state_dict(), **state} if spoil != "missing" else state)


def test_tied_words(tmp_path: Path) -> None:
    model = stirred(build_s2("tiny", 50, seed=0))
    model.save_pretrained(tmp_path)
    copy, source = "text_encoder.cls.predictions.decoder.weight", "text_encoder.bert.embeddings.word_embeddings.weight"
    assert len({copy, source} & set(load_file(tmp_path / "model.safetensors"))) == 1
    again = AutoModel.from_pretrained(tmp_path)
    for m in (model, again):
        assert m.get_parameter(copy) is m.get_parameter(source)
    state = {n: t.clone() for n, t in model.state_dict().items()}
    load_strict(again, {n: t for n, t in state.items() if n != source})  # either of the two will do
    state[copy] += 1
    with pytest.raises(UserError, match="one tensor"):
        load_strict(again, state)


def test_old_buffers_are_ignored_and_named() -> None:
    model = build_s2("tiny", 50, seed=0)
    extra = {"text_encoder.bert.embeddings.position_ids": torch.arange(64)[None]}
    assert load_strict(model, {**model.state_dict(), **extra}) == list(extra)


# half precision


def close(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a.float() - b.float()).norm() / b.float().norm()).item()


def test_bfloat16_stays_near_float32(model: S2Model | ClipModel, tmp_path: Path) -> None:
    exact = outputs(model)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = outputs(model)
    model.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    pure = outputs(model.bfloat16())
    for a, b, c, d in zip(exact, mixed, pure, outputs(loaded), strict=True):
        assert close(b, a) < 0.05 and close(c, a) < 0.05
        assert c.dtype == d.dtype == torch.bfloat16
        assert torch.equal(c, d)


def test_rotary_angles_survive_a_cast() -> None:
    rotary = build_clip("tiny", 50, seed=0).bfloat16().text_encoder.transformer.rotary_emb
    assert rotary.inv_freq.dtype == torch.float32
    expected = 10000.0 ** -(torch.arange(0, 32, 2) / 32)
    torch.testing.assert_close(rotary.inv_freq, expected)


# s2 -> clip


def test_clip_goes_on_from_s2() -> None:
    s2 = stirred(build_s2("tiny", 50, seed=0, num_frames=4, num_decoders=2, decoder_width=8, final_decoder_width=8))
    clip = clip_from_s2(s2, clip_config("tiny", 60), seed=7).eval()
    own = s2.vision_encoder.state_dict()
    for name, value in clip.vision_encoder.state_dict().items():
        if name == "pos_embed":
            assert value.shape == (1, 65, 96) and own[name].shape == (1, 33, 96)
        else:
            assert torch.equal(value, own[name]), name
    assert clip.temp.item() == pytest.approx(0.07) and clip.config.seed == 7
    fresh = build_clip("tiny", 60, seed=7)
    assert torch.equal(clip.text_encoder.text_projection, fresh.text_encoder.text_projection)
    same = clip_from_s2(stirred(build_s2("tiny", 50, seed=0)), clip_config("tiny", 60), seed=7).eval()
    s2_same = stirred(build_s2("tiny", 50, seed=0))
    torch.testing.assert_close(same.encode_tokens(video()), s2_same.encode_tokens(video()))
    torch.testing.assert_close(same.encode_video(video()), s2_same.encode_video(video())[1])
    with pytest.raises(UserError, match="depth"):
        clip_from_s2(s2, clip_config("tiny", 60, depth=2), seed=0)


def test_clip_reads_with_the_text_layers_of_s2_where_it_is_told_to() -> None:
    s2 = stirred(build_s2("tiny", 60, seed=0))
    clip = clip_from_s2(s2, with_bert(clip_config("tiny", 60)), seed=7).eval()
    assert clip.config.text_shape().max_position_embeddings == 160  # as clip's own tower
    assert torch.equal(clip.encode_tokens(video()), s2.encode_tokens(video()))
    own, theirs = clip.text_encoder.bert.state_dict(), s2.text_encoder.bert.state_dict()
    places = "embeddings.position_embeddings.weight"
    long = torch.cat([theirs[places], own[places][len(theirs[places]) :]])
    load_strict(clip.text_encoder.bert, {n: long if n == places else theirs[n] for n in own})
    expected = s2.encode_text(IDS, IDS > 0)[:, 0]
    torch.testing.assert_close(clip.read_text(IDS), expected)
    torch.testing.assert_close(clip.encode_text(IDS), expected @ clip.text_encoder.text_projection)


def test_temperature_clamp() -> None:
    s2, clip = build_s2("tiny", 50, seed=0), build_clip("S14", 300, seed=0, depth=1, num_hidden_layers=1)
    for model, low, high in ((s2, 0.001, 0.5), (clip, 0.01, 3.0)):
        for value, expected in ((-1.0, low), (3.0, high), (0.05, 0.05)):
            with torch.no_grad():
                model.temp.fill_(value)
            model.clamp_temp()
            assert model.temp.item() == pytest.approx(expected)


def test_no_weight_decay() -> None:
    s2, clip = build_s2("tiny", 50, seed=0), build_clip("tiny", 50, seed=0)
    assert s2.no_weight_decay() == ["temp", "vision_encoder.cls_token", "vision_encoder.pos_embed"]
    assert {n for n in clip.no_weight_decay() if n.startswith("text_encoder.")} == {
        n for n, _ in clip.named_parameters() if n.startswith("text_encoder.")
    }
