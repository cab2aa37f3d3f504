"""Policies: every trained parameter gets a gradient, nothing else moves, frozen parts sleep through train()."""

import pytest
import torch

from ivcore.errors import UserError
from ivcore.losses.mlm import mlm_loss
from ivcore.losses.vtc import vtc_loss
from ivcore.losses.vtm import vtm_loss
from ivcore.models import build_clip, build_s2, lora
from ivcore.models.base import VideoTextModel
from ivcore.models.freeze import (
    FOR_MODEL,
    POLICIES,
    apply_policy,
    digest,
    trained_names,
    verify,
)

CASES = [(kind, policy) for kind, policies in FOR_MODEL.items() for policy in policies]


def build(kind: str) -> VideoTextModel:
    overrides = {"drop_path": 0.2}
    return (
        build_s2("tiny", 50, seed=0, dropout=0.1, fusion_width=16, **overrides)
        if kind == "ivflow_s2"
        else build_clip("tiny", 50, seed=0, **overrides)
    )


def loss(model: VideoTextModel) -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    video, ids = torch.randn(4, 8, 3, 32, 32, generator=g), torch.randint(1, 50, (4, 6), generator=g)
    own, mask = torch.arange(4), torch.ones_like(ids)
    if model.config.model_type == "ivflow_clip":
        return vtc_loss(model.pool(model.encode_tokens(video)), model.encode_text(ids), model.temp, own)
    tokens, pooled = model.encode_video(video)
    states, kv = model.encode_text(ids, mask), model.video_kv(tokens)
    neg = torch.tensor([1, 0, 3, 2])
    return (
        vtc_loss(model.project_video(pooled), model.project_text(states), model.temp, own)
        + vtm_loss(model, states, mask, kv, neg, neg)[0]
        + mlm_loss(model.mlm_logits(model.fuse(states, mask, kv)), ids)
    )


@pytest.mark.parametrize(("kind", "policy"), CASES)
def test_trained_move_and_frozen_stand_still(kind: str, policy: str) -> None:
    model = build(kind)
    if policy == "clip_lora":
        lora.add(model, seed=0)
    every = [name for name, _ in model.named_parameters()]
    trained = apply_policy(model.train(), policy)
    verify(model, policy)
    frozen = sorted(set(every) - set(trained))
    before = digest(model, frozen), digest(model, trained)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    loss(model).backward()
    for name, parameter in model.named_parameters():
        if name in trained:
            assert parameter.grad is not None, name
            blind = ("k_bias", "key.bias", "norm1_k.bias")  # to key biases softmax is
            if not name.endswith((*blind, "embeddings.weight", "embed_tokens.weight")) and "lora_A" not in name:
                assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name
    optimizer.step()
    assert digest(model, frozen) == before[0] and digest(model, trained) != before[1]


def test_policies_of_clip_are_upstreams() -> None:
    model = build("ivflow_clip")
    assert len(trained_names(model, "clip")) == 15  # 14 of the pooling, and temp
    assert "temp" in trained_names(model, "clip")
    assert set(trained_names(model, "clip_text")) > {"text_encoder.text_projection", "temp"}
    assert not any("text_encoder" in n for n in trained_names(model, "clip_trunk"))


def test_policies_of_s2_split_the_text_tower() -> None:
    model = build("ivflow_s2")
    fusion, head = set(trained_names(model, "fusion")), set(trained_names(model, "vtc_head"))
    assert not fusion & head
    assert {n.split(".")[4] for n in fusion if ".layer." in n} == {"2", "3"}
    assert {n.split(".")[4] for n in head if ".layer." in n} == {"0", "1"}
    assert {"itm_head.weight", "itm_head.bias"} <= fusion


def test_all_leaves_out_what_no_loss_reaches() -> None:
    model = build_s2("tiny", 50, seed=0, num_decoders=2, decoder_width=8, final_decoder_width=8, image_table=True)
    left_out = {n for n, _ in model.named_parameters()} - set(trained_names(model, "all"))
    assert left_out and all("clip_decoder" in n or "clip_pos" in n or "clip_img" in n for n in left_out)


def test_frozen_parts_stay_in_eval_mode() -> None:
    model = build("ivflow_s2")
    apply_policy(model, "fusion")
    model.train()
    assert model.training and not model.vision_encoder.training
    assert not any(m.training for m in model.vision_encoder.modules())
    layers = model.text_encoder.bert.layers()
    assert not layers[1].training and layers[2].training and layers[2].crossattention.output.dropout.training
    video = torch.randn(2, 8, 3, 32, 32)
    assert torch.equal(model.encode_tokens(video), model.encode_tokens(video))  # no stochastic depth
    apply_policy(model, "all")
    assert model.vision_encoder.training  # woken again


def test_lora_changes_nothing_at_first_and_leaves_no_trace() -> None:
    model, ids = build("ivflow_clip").eval(), torch.randint(1, 50, (4, 6))
    names, state = list(model.state_dict()), {n: t.clone() for n, t in model.state_dict().items()}
    plain = model.encode_text(ids)
    with pytest.raises(UserError, match=r"lora\.add"):
        apply_policy(model, "clip_lora")
    lora.add(model, seed=0)
    assert torch.equal(model.encode_text(ids), plain)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    branched = model.encode_text(ids)
    assert (branched - plain).abs().max() > 1e-3
    lora.merge(model)
    assert list(model.state_dict()) == names
    torch.testing.assert_close(model.encode_text(ids), branched, rtol=1e-5, atol=1e-5)
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, state[n])}
    assert moved == {n for n in names if n.endswith(("q_proj.weight", "v_proj.weight"))}


def test_lora_starts_from_its_seed_and_needs_a_llama() -> None:
    one, two, other = (build("ivflow_clip") for _ in range(3))
    for model, seed in ((one, 0), (two, 0), (other, 1)):
        lora.add(model, seed)
    branches = [n for n, _ in one.named_parameters() if "lora_" in n]
    assert digest(one, branches) == digest(two, branches) != digest(other, branches)
    with torch.device("meta"), pytest.raises(UserError, match="of kind mobileclip"):
        lora.add(build_clip("S14", None, seed=0), seed=0)


def test_verify_notices() -> None:
    model = build("ivflow_clip")
    apply_policy(model.train(), "clip")
    model.text_encoder.text_projection.requires_grad_(True)
    with pytest.raises(UserError, match="text_projection"):
        verify(model, "clip")
    apply_policy(model, "clip")
    model.vision_encoder.blocks[0].train()
    with pytest.raises(UserError, match=r"blocks\.0"):
        verify(model, "clip")


def test_unknown_and_unfit_policies() -> None:
    with pytest.raises(UserError, match="vtc_head"):
        apply_policy(build("ivflow_s2"), "clip")
    with pytest.raises(UserError, match="clip_text"):
        apply_policy(build("ivflow_clip"), "nothing")
    assert set(POLICIES) == {policy for _, policy in CASES}


def test_digest_sees_value_dtype_shape_and_name() -> None:
    model = build("ivflow_clip")
    names = ["temp", "vision_encoder.cls_token"]
    first = digest(model, names)
    assert digest(model, reversed(names)) == first and len(first) == 64
    assert digest(model.bfloat16(), names) != first
    with pytest.raises(UserError, match="nowhere"):
        digest(model, ["nowhere"])
