"""The comparisons of the clip topics: vision tower, both text towers, the small and the large model, s2 to clip."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from ivcore.losses.vtc import similarity, vtc_loss
from ivcore.models import position_embedding
from ivcore.models.base import IGNORED_KEYS, load_strict
from ivcore.models.clip import ClipModel
from ivcore.models.config import ClipConfig
from ivcore.models.convert import (
    Converted,
    assemble_clip,
    clip_text_state,
    clip_tower_state,
    clip_vision_state,
    is_lora,
    merge_lora,
)
from ivcore.models.dimensions import LlamaShape, MobileClipShape
from ivcore.models.freeze import apply_policy
from ivcore.models.llama import LlamaTower
from ivcore.models.mobileclip import MobileClipTower
from ivcore.parity.recording import Check, Recording, scaled
from ivcore.parity.s2 import gradient_norms, temperature, tower, vision_shape


@torch.no_grad()
def vision(rec: Recording) -> Iterator[Check]:
    """Video, image, tables for space and time apart, inputs and output of the attention pooling."""
    shape, state = vision_shape(rec.config["model"]), rec.state()
    split_state = {**{n: t for n, t in state.items() if n != "pos_embed"}, **rec.state("state_sep")}
    models = {
        "": tower(shape, state),
        "small": tower(shape, scaled(state, rec.config["small_activation_rule"])),
        "sep": tower(replace(shape, split_table=True), split_state),
    }
    for case in rec.cases():
        model = models["sep" if case.startswith("sep_pos") else "small" if "small" in case else ""]
        video = rec.get("image" if case.endswith("image") else "video").transpose(1, 2)  # recorded as [B, C, T, H, W]
        states = model.states(video)
        pool, tokens = model.clip_projector, states[-1]
        ours: dict[str, Any] = {
            "embedding": model.pool(tokens),
            "patch_embed": model.patch_embed(video),
            "pool_in": tokens,
            "pool_q_in": pool.norm1_q(tokens.mean(dim=1, keepdim=True)),
            "pool_k_in": pool.norm1_k(tokens),
            "pool_v_in": pool.norm1_v(tokens),
            **{f"block_{i}": x for i, x in enumerate(states)},
        }
        yield from rec.checks(case, ours)


def mobileclip_shape(config: dict[str, Any]) -> MobileClipShape:
    """Upstream's configuration of the small text tower -> ours."""
    return MobileClipShape(
        vocab_size=config["vocab_size"],
        hidden_size=config["dim"],
        intermediate_size=int(config["dim"] * config["ffn_multiplier_per_layer"]),
        num_hidden_layers=config["n_transformer_layers"],
        num_attention_heads=config["n_heads_per_layer"],
        max_position_embeddings=config["context_length"],
        causal=config["causal_masking"],
    )


def llama_shape(config: dict[str, Any]) -> LlamaShape:
    """A LLaMA configuration -> ours."""
    names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    return LlamaShape(**{n: config[n] for n in (*names, "max_position_embeddings", "rms_norm_eps")})


@torch.no_grad()
def mobileclip(rec: Recording) -> Iterator[Check]:
    """Causal and not, full and short texts, padding."""
    for variant, config in rec.config["variants"].items():
        shape, state = mobileclip_shape(config["text_cfg"]), rec.state(f"state_{variant}")
        model, small = (MobileClipTower(shape, config["embed_dim"]).eval() for _ in range(2))
        load_strict(model, state)
        load_strict(small, scaled(state, rec.config["small_activation_rule"]))
        ids, short = rec.get("ids"), rec.get("ids_short")
        ours = {
            "all_tokens": model.states(ids),
            "embedding": model(ids),
            "embedding_padmask": model(ids, rec.get("key_padding_mask")),
            "embedding_short": model(short),
            "embedding_small": small(ids),
            "pos_embed_short": model.positional_embedding["pos_embed"](short.shape[1]),
        }
        yield from rec.checks(variant, ours)


@torch.no_grad()
def llama(rec: Recording) -> Iterator[Check]:
    """Padded texts, an id 0 inside a text, LoRA merged into the matrices."""
    rules = rec.config["small_activation_rule"]
    for variant in ("plain", "lora"):
        state = rec.state(f"state_{variant}")
        model, small = (LlamaTower(llama_shape(rec.config["llama"]), rec.config["clip_embed_dim"]).eval() for _ in "ab")
        load_strict(model, merge_lora(state))
        load_strict(small, merge_lora(scaled(state, rules)))
        names = sorted(n for n in rec.results[f"state_names_{variant}"] if not n.endswith(IGNORED_KEYS))
        yield f"state_names_{variant}", sorted(model.state_dict()), [n for n in names if not is_lora(n)]
        for case in ("right_padded", "interior_zero"):
            ids = rec.get(case)
            yield from rec.checks(variant, {f"{case}/embedding": model(ids), f"{case}_small/embedding": small(ids)})
            name = f"out/{variant}/{case}/last_hidden_state"
            if name in rec.tensors:  # at padding no two implementations agree, nor need they
                rec.asked.add(name)
                yield name.removeprefix("out/"), model.states(ids)[ids > 0], rec.tensors[name][ids > 0]
            yield from rec.checks("pool_index", {case: model.pool_index(ids)})


def small(rec: Recording) -> Iterator[Check]:
    """The small model: features, loss, gradients of what trains, scores, temperature, loading from three files."""
    config = rec.config
    text = config["text_json"]
    clip = ClipConfig(
        vision=asdict(vision_shape(config["vision"], layer_scale_init=0.1)),
        text=asdict(mobileclip_shape(text["text_cfg"])),
        align_dim=config["vision"]["align_dim"],
        temp=config["temp"],
        temp_min=config["temp_min"],
    )
    model, scaled_down = ClipModel(clip).eval(), ClipModel(clip).eval()
    load_strict(model, rec.state())
    load_strict(scaled_down, scaled(rec.state(), config["small_activation_rule"]))
    with torch.no_grad():
        for name, ours in {
            "vision_embeds": model.encode_video(rec.get("video")),
            "image_embeds": model.encode_video(rec.get("image")),
            "text_embeds": model.encode_text(rec.get("text")),
        }.items():
            yield from rec.checks(name, {"": ours})
        yield from rec.checks("small_activation", {"vision_embeds": scaled_down.encode_video(rec.get("video"))})
        yield from rec.checks("eval", _scores(model, rec.get("eval_video"), rec.get("eval_text")))
    trained = apply_policy(model, "clip")
    yield "requires_grad", trained, sorted(n for n, on in rec.results["requires_grad"].items() if on)
    for which in ("idx_unique", "idx_dup"):
        model.zero_grad()
        loss = _loss(model, rec, "video", which)
        loss.backward()
        yield f"forward/{which}", loss, rec.results[f"forward/{which}"]["loss_vtc"]
    yield from gradient_norms(
        "forward_idx_dup", dict(model.named_parameters()), rec.results["forward_idx_dup_grad_norm"]
    )
    yield from temperature(rec, model)
    known = {name for name, _ in model.named_parameters()}
    yield "no_weight_decay", model.no_weight_decay(), sorted(set(rec.results["no_weight_decay"]) & known)
    yield from _small_files(rec, set(model.state_dict()))


def _small_files(rec: Recording, names: set[str]) -> Iterator[Check]:
    results = rec.results["load_checkpoint"]
    found = Converted()
    for part in (
        clip_tower_state(rec.state("in/ckpt/vision")),
        clip_text_state(rec.state("in/ckpt/text"), "mobileclip"),
        Converted(rec.state("in/ckpt/extra")),
    ):
        found.state.update(part.state)
    yield "load_checkpoint/keys", sorted(found.state), sorted(results["keys"])
    yield "load_checkpoint/missing", sorted(names - set(found.state)), sorted(results["missing"])
    yield "load_checkpoint/unexpected", sorted(set(found.state) - names), sorted(results["unexpected"])
    for name, value in rec.state("in/ckpt/extra").items():
        yield f"load_checkpoint/{name}", found.state[name], value


def from_s2(rec: Recording) -> Iterator[Check]:
    """Position tables made and resized; an s2 checkpoint turned into clip for other frames and pixels, and run."""
    for case in rec.config["interpolation_cases"]:
        old = (case["orig_t"], case["orig_hw"], case["orig_hw"])
        new = (case["new_t"], case["new_hw"], case["new_hw"])
        yield from rec.checks("interp", {case["name"]: position_embedding.resize(rec.tensors[case["in"]], old, new)})
    for width, side, frames in rec.config["sincos_cases"]:
        table = position_embedding.sincos(width, (frames, side, side))[0]
        yield from rec.checks("sincos", {f"d{width}_hw{side}_t{frames}": table})
    for case in rec.config["cases"]:
        yield from _converted(rec, case)


def _converted(rec: Recording, case: dict[str, Any]) -> Iterator[Check]:
    name, config, results = case["name"], rec.config["clip"], rec.results[case["name"]]
    source = rec.state("in/s2")
    s2_shape = vision_shape(rec.config["s2"]["model"]["vision_encoder"])
    if "s2_pos_embed" in case:
        source["vision_encoder.pos_embed"] = rec.tensors[case["s2_pos_embed"]]
        s2_shape = replace(s2_shape, num_frames=case["vision_ckpt_t_size"])
    shape = vision_shape({**config["vision"], **case["vision"]}, layer_scale_init=0.1)
    text = llama_shape(config["llama"])
    clip = ClipConfig(vision=asdict(shape), text=asdict(text), temp=config["temp"], temp_min=config["temp_min"])
    extra = rec.state("in/extra") if case.get("extra") else {}
    parts = clip_vision_state(source, s2_shape, shape), clip_text_state(rec.state("in/text_ckpt"), text.kind)
    model = ClipModel(clip).eval()
    load_strict(model, {"temp": torch.tensor(config["temp"]), **assemble_clip(*parts, extra).state})
    names = [n for n in results["state_names"] if not is_lora(n) and not n.endswith(IGNORED_KEYS)]
    yield f"{name}/state_names", sorted(model.state_dict()), sorted(names)
    yield f"{name}/temp", model.temp, float(results["temp"])
    with torch.no_grad():
        yield from rec.checks(name, {f"state/{n}": t for n, t in model.state_dict().items()})
        yield from rec.checks(
            name,
            {
                "vision_embeds": lambda: model.encode_video(rec.tensors[case["video"]]),
                "image_embeds": lambda: model.encode_video(rec.get("image")),
                "text_embeds": lambda: model.encode_text(rec.get("text")),
            },
        )
        if case.get("full"):
            scores = _scores(model, rec.tensors[case["video"]], rec.get("eval_text"))
            yield from rec.checks(name, {f"eval/{n}": t for n, t in scores.items()})
            for which in ("idx_unique", "idx_dup"):
                loss = _loss(model, rec, case["video"].removeprefix("in/"), which)
                yield f"{name}/forward/{which}", loss, results[f"forward/{which}"]["loss_vtc"]
            trains = sorted(n for n, on in results["requires_grad"].items() if on)
            yield f"{name}/requires_grad", apply_policy(model, "clip"), trains


def _loss(model: ClipModel, rec: Recording, video: str, which: str) -> Tensor:
    model.clamp_temp()
    vectors = model.encode_video(rec.get(video)), model.encode_text(rec.get("text"))
    return vtc_loss(*vectors, model.temp, rec.get(which))


def _scores(model: ClipModel, video: Tensor, text: Tensor) -> dict[str, Tensor]:
    sim = similarity(model.encode_video(video), model.encode_text(text), 1.0)  # [V, T]
    return {
        "i2t_sim": sim,
        "t2i_sim": sim.T,
        "i2t_dsl": sim * sim.softmax(dim=0),
        "t2i_dsl": sim.T * sim.T.softmax(dim=0),
    }
