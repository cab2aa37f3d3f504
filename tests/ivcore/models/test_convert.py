"""Upstream's files: containers, one place for every entry, LoRA, deltas."""

import pytest
import torch

from ivcore.errors import UserError
from ivcore.models import build_clip, build_s2
from ivcore.models.base import load_strict
from ivcore.models.convert import (
    assemble_clip,
    clip_text_state,
    clip_tower_state,
    clip_vision_state,
    merge_lora,
    s2_state,
)


def test_s2_file_with_every_oddity() -> None:
    model = build_s2("tiny", 50, seed=0, num_frames=4)
    wanted = build_s2("tiny", 50, seed=1, num_frames=8)
    state = {n.replace("text_encoder.bert.", "text_encoder."): t for n, t in model.state_dict().items()}
    odd = {
        "text_encoder.embeddings.position_ids": torch.arange(64)[None],
        "audio_encoder.x": torch.zeros(1),
        "avtm_head.bias": torch.zeros(2),
    }
    found = s2_state({**state, **odd}, wanted.config.vision_shape())
    assert set(found.kept) | set(found.dropped) == set(state) | set(odd)
    assert not set(found.kept) & set(found.dropped) and set(found.dropped) == set(odd)
    load_strict(wanted, found.state)
    assert torch.equal(wanted.itm_head.weight, model.itm_head.weight)
    assert wanted.vision_encoder.pos_embed.shape == (1, 65, 96)


def test_clip_from_an_s2_file_a_text_file_and_a_delta() -> None:
    s2, clip = build_s2("tiny", 50, seed=0), build_clip("tiny", 60, seed=0)
    shape = s2.config.vision_shape()
    text = {
        n.removeprefix("text_encoder."): t.clone()
        for n, t in clip.state_dict().items()
        if n.startswith("text_encoder.")
    }
    text |= {"logit_scale": torch.ones(1), "visual.x": torch.ones(1)}
    base = "transformer.layers.0.self_attn.q_proj"
    text[f"{base}.base_layer.weight"] = text.pop(f"{base}.weight")
    text[f"{base}.lora_A.default.weight"] = torch.full((2, 96), 0.5)
    text[f"{base}.lora_B.default.weight"] = torch.full((96, 2), 0.25)
    delta = {n: t + 1 for n, t in clip.state_dict().items() if "clip_projector" in n or n == "temp"}
    delta["text_encoder.transformer.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(16)
    vision = clip_vision_state(s2.state_dict(), shape, clip.config.vision_shape())
    found = clip_text_state(text, "llama")
    for part, source in ((vision, s2.state_dict()), (found, text)):
        assert set(part.kept) | set(part.dropped) == set(source) and not set(part.kept) & set(part.dropped)
    whole = assemble_clip(vision, found, delta)
    load_strict(clip, whole.state)
    merged = clip.get_parameter(f"text_encoder.{base}.weight")
    torch.testing.assert_close(merged, text[f"{base}.base_layer.weight"] + 2 * 2 * 0.5 * 0.25)
    assert torch.equal(
        clip.vision_encoder.clip_projector.norm1_q.bias, delta["vision_encoder.clip_projector.norm1_q.bias"]
    )
    with pytest.raises(UserError, match="delta"):
        assemble_clip(delta)


def test_tower_file_loses_only_distillation() -> None:
    tower = build_clip("tiny", 60, seed=0).vision_encoder.state_dict()
    found = clip_tower_state({**tower, "clip_decoder.0.head.0.weight": torch.ones(1), "clip_pos_embed": torch.ones(1)})
    assert set(found.state) == {f"vision_encoder.{n}" for n in tower}
    assert set(found.dropped) == {"clip_decoder.0.head.0.weight", "clip_pos_embed"}


def test_half_a_branch_is_refused() -> None:
    state = {"q.weight": torch.eye(2), "q.lora_A.default.weight": torch.eye(2)}
    with pytest.raises(UserError, match="lora_B"):
        merge_lora(state)
    with pytest.raises(UserError, match=r"q\.weight"):
        merge_lora({"q.lora_A.default.weight": torch.eye(2), "q.lora_B.default.weight": torch.eye(2)})


def test_merge_rounds_once() -> None:
    state = {
        "q.weight": torch.eye(2).bfloat16(),
        "q.lora_A.default.weight": torch.full((1, 2), 0.01).bfloat16(),
        "q.lora_B.default.weight": torch.full((2, 1), 0.01).bfloat16(),
    }
    merged = merge_lora(state)
    assert set(merged) == {"q.weight"} and merged["q.weight"].dtype == torch.bfloat16
