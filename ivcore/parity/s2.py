"""The comparisons of the s2 topics: vision tower, text and fusion tower, the whole model with its losses."""

import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor, nn

from ivcore.losses.mlm import apply_corruption, mlm_loss
from ivcore.losses.vtc import same_id, similarity, vtc_loss
from ivcore.losses.vtm import negative_weights, pairs, vtm_loss
from ivcore.models.base import load_strict
from ivcore.models.config import S2Config
from ivcore.models.dimensions import BertShape, VisionShape
from ivcore.models.s2 import S2Model
from ivcore.models.text import TextTower
from ivcore.models.vision import VisionTower
from ivcore.parity.recording import Check, Recording, scaled

NORM_FLOOR = 1e-6  # of the largest gradient norm: below it a norm is rounding (key biases, to which softmax is blind)


def vision_shape(config: dict[str, Any], **more: Any) -> VisionShape:
    """Upstream's words for a vision tower -> ours. The recordings ran unfused, and so with the exact GELU."""
    width = config.get("embed_dim") or config["d_model"]
    return VisionShape(
        image_size=config["img_size"],
        patch_size=config["patch_size"],
        tubelet_size=config.get("tubelet_size", 1),
        num_frames=config["num_frames"],
        width=width,
        depth=config["depth"],
        num_heads=config["num_heads"],
        mlp_hidden=int(width * config["mlp_ratio"]),
        pool_heads=config["attn_pool_num_heads"],
        pool_width=config["clip_embed_dim"],
        gelu="tanh" if config.get("use_fused_mlp") else "erf",
        layer_scale_fp32=not config.get("layerscale_no_force_fp32", False),
        image_table=config.get("sep_image_video_pos_embed", False),
        split_table=config.get("sep_pos_embed", False),
        num_decoders=config.get("clip_return_layer", 0),
        decoder_interval=config.get("clip_student_return_interval", 1),
        decoder_width=config.get("clip_teacher_embed_dim", 1),
        final_decoder_width=config.get("clip_teacher_final_dim", 1),
        **more,
    )


def bert_shape(config: dict[str, Any]) -> BertShape:
    """Upstream's BERT configuration -> ours."""
    names = ("vocab_size", "hidden_size", "num_hidden_layers", "fusion_layer", "num_attention_heads")
    more = ("intermediate_size", "max_position_embeddings", "type_vocab_size", "layer_norm_eps")
    return BertShape(**{n: config[n] for n in names + more}, dropout=config["hidden_dropout_prob"])


def tower(shape: VisionShape, state: dict[str, Tensor]) -> VisionTower:
    """A vision tower with these weights, in eval mode."""
    model = VisionTower(shape)
    load_strict(model, state)
    return model.eval()


def build_full(config: dict[str, Any], state: dict[str, Tensor]) -> S2Model:
    """The s2 model of upstream's configuration with these weights, in eval mode."""
    model = S2Model(
        S2Config(
            vision=asdict(vision_shape(config["vision_encoder"])),
            text=asdict(bert_shape(config["text_encoder"]["bert_config"])),
            embed_dim=config["embed_dim"],
            temp=config["temp"],
        )
    )
    load_strict(model, state)
    return model.eval()


@torch.no_grad()
def vision(rec: Recording) -> Iterator[Check]:
    """Video, image, masked, separate and shared tables, the output of each block."""
    shape, state = vision_shape(rec.config["model"]), rec.state()
    shared_state = {n: t for n, t in state.items() if "img_pos_embed" not in n}
    models = {
        "": tower(shape, state),
        "small": tower(shape, scaled(state, rec.config["small_activation_rule"])),
        "shared": tower(replace(shape, image_table=False), shared_state),
    }
    yield "state_names_sep_false", sorted(models["shared"].state_dict()), sorted(rec.results["state_names_sep_false"])
    masks = {"random_mask": "video_mask_random", "tube_mask": "video_mask_tube", "mask": "image_mask"}
    for case in rec.cases():
        model = models["shared" if "shared_pos" in case else "small" if "small" in case else ""]
        video = rec.get("image" if case.startswith("image") else "video").transpose(1, 2)  # recorded as [B, C, T, H, W]
        mask = next((rec.get(name) for end, name in masks.items() if case.endswith(end)), None)
        states = model.states(video, mask)
        last = (
            int(found[1]) if (found := re.search(r"x_vis_return_idx=(-\d+)", rec.about["calls"].get(case, ""))) else -1
        )
        middle, final = model.align(video, mask)
        ours: dict[str, Any] = {
            "x_vis": states[last],
            "x_pool_vis": model.pool(states[-1]),
            "x_clip_align": middle,
            "x_align": final,
            "patch_embed": model.patch_embed(video),
            **{f"block_{i}": x for i, x in enumerate(states)},
        }
        yield from rec.checks(case, ours)
        if case in ("video", "video_random_mask"):
            yield f"{case}/forward", model(video, mask), rec.tensors[f"out/{case}/x_vis"]


@torch.no_grad()
def text(rec: Recording) -> Iterator[Check]:
    """Text, fusion and joint modes, padding, video mask, masked language from recorded draws."""
    config = rec.config["model"]

    def build(state: dict[str, Tensor]) -> TextTower:
        holder = nn.Module()
        holder.text_encoder = TextTower(bert_shape(config), config["encoder_width"])
        copy = "cls.predictions.decoder.weight"  # of the word embeddings, which alone a *small* rule scales
        load_strict(holder, {f"text_encoder.{n}": t for n, t in state.items() if n != copy})
        return holder.eval().text_encoder  # type: ignore[return-value]

    model, small = build(rec.state()), build(scaled(rec.state(), rec.config["small_activation_rule"]))
    ids, mask = rec.get("input_ids"), rec.get("attention_mask")
    kv = model.video_kv(rec.get("vision_embeds"))

    def named(states: list[Tensor]) -> dict[str, Any]:
        return {"last_hidden_state": states[-1], **{f"hidden_{i}": x for i, x in enumerate(states)}}

    states = model.text_states(ids, mask)
    fused = model.fusion_states(states[-1], mask, kv)
    yield from rec.checks("text", named(states))
    yield from rec.checks("text_no_mask", named(model.text_states(ids)))
    yield from rec.checks("text_small", named(small.text_states(ids, mask)))
    yield from rec.checks("fusion", named(fused))
    masked = model.fusion_states(states[-1], mask, kv, video_mask=rec.get("vision_mask"))
    yield from rec.checks("fusion_vision_mask", named(masked))
    yield from rec.checks("multi_modal", named(states + fused[1:]))

    chosen = rec.get("mlm_draws/selected") & (ids != rec.config["pad_token_id"]) & (ids != rec.config["cls_token_id"])
    hidden = chosen & rec.get("mlm_draws/replace80")
    swapped = chosen & ~hidden & rec.get("mlm_draws/random50")
    words = rec.get("mlm_draws/random_words")
    corrupted, labels = apply_corruption(ids, chosen, hidden, swapped, words, rec.config["mask_token_id"])
    embeds = model.encode(corrupted, mask)
    logits = model.mlm_logits(model.fuse(embeds, mask, kv))
    loss = mlm_loss(logits, labels)
    ours = {"labels": labels, "masked_input_ids": corrupted, "text_embeds": embeds, "logits": logits, "loss": loss}
    yield from rec.checks("mlm", ours)
    for name in ("mlm_loss", "simple_mlm_loss"):
        yield name, loss, rec.results[name]


def full(rec: Recording) -> Iterator[Check]:
    """Features, the three losses, matching of all pairs, gradients with and without a mask, temperature."""
    model = build_full(rec.config["model"], rec.state())
    with torch.no_grad():
        yield from _features(rec, model)
        yield from _losses(rec, model)
    yield from gradients(rec, model, "forward", None)
    yield from gradients(rec, model, "forward_masked", rec.get("video_mask"))
    yield from temperature(rec, model)
    known = {name for name, _ in model.named_parameters()}
    yield "no_weight_decay", model.no_weight_decay(), sorted(set(rec.results["no_weight_decay"]) & known)
    renamed = re.compile(r"^text_encoder\.bert\.")
    bare = {renamed.sub("text_encoder.", n) for n in model.state_dict() if not n.startswith("text_encoder.cls.")}
    recorded = {n for n in rec.results["state_names_is_pretrain_false"] if not n.endswith("position_ids")}
    yield "state_names_is_pretrain_false", sorted(bare), sorted(recorded)


def temperature(rec: Recording, model: Any) -> Iterator[Check]:
    """The clamp of the temperature, for each recorded value; leaves the last one in the model."""
    for before, after in rec.results["temperature_clamp"].items():
        with torch.no_grad():
            model.temp.fill_(float(before))
        model.clamp_temp()
        yield f"temperature_clamp/{before}", model.temp, float(after)


def _features(rec: Recording, model: S2Model) -> Iterator[Check]:
    tokens, pooled = model.encode_video(rec.get("video"))
    image_tokens, image_pooled = model.encode_video(rec.get("image"))
    states = model.encode_text(rec.get("input_ids"), rec.get("attention_mask"))
    video, text = model.project_video(pooled), model.project_text(states)
    temp = rec.config["model"]["temp"]
    frames = rec.get("vision_proj_frames")
    mean = similarity(frames, text, temp)
    for name, ours in {
        "vision_embeds": tokens,
        "pooled_vision_embeds": pooled,
        "image_embeds": image_tokens,
        "pooled_image_embeds": image_pooled,
        "text_embeds": states,
        "pooled_text_embeds": states[:, 0],
        "vision_proj": video,
        "text_proj": text,
        "sim_v2t": similarity(video, text, temp),
        "sim_t2v": similarity(video, text, temp).T,
    }.items():
        yield from rec.checks(name, {"": ours})
    yield from rec.checks("get_sim_3d", {"mean_v2t": mean, "mean_t2v": mean.T})
    every = [model.match(states, rec.get("attention_mask"), model.video_kv(one[None])) for one in tokens]
    yield from rec.checks("itm_pairs", {"logits": torch.stack(every)})


def _losses(rec: Recording, model: S2Model) -> Iterator[Check]:
    tokens, pooled = model.encode_video(rec.get("video"))
    mask = rec.get("attention_mask")
    states = model.encode_text(rec.get("input_ids"), mask)
    video, text = model.project_video(pooled), model.project_text(states)
    kv = model.video_kv(tokens)
    for name, theirs in rec.results.items():
        if found := re.fullmatch(r"vtc_loss(_3d/mean)?/idx_(\w+?)(?:/no_gather)?/temp=([\d.e-]+)", name):
            ids = torch.arange(len(text)) if found[2] == "none" else rec.get(f"idx_{found[2]}")
            side = rec.get("vision_proj_frames") if found[1] else video
            yield name, vtc_loss(side, text, float(found[3]), ids), theirs
    targets = same_id(rec.get("idx_dup")).float()
    yield from rec.checks("vtc", {"targets_dup": targets / targets.sum(dim=1, keepdim=True)})
    for which in ("idx_unique", "idx_dup"):
        ids, neg_video, neg_text = (rec.get(f"{which}{end}") for end in ("", "_vision_neg", "_text_neg"))
        weights_v2t, weights_t2v = negative_weights(video, text, rec.config["model"]["temp"], ids)
        loss, logits = vtm_loss(model, states, mask, kv, neg_video, neg_text)
        t, v = pairs(neg_video, neg_text)
        embeds = model.fuse(states[t], mask[t], kv, v)[:, 0]
        ours = {"embeds": embeds, "logits": logits, "weights_v2t": weights_v2t, "weights_t2v": weights_t2v}
        yield from rec.checks("vtm", {f"{which}/{name}": value for name, value in ours.items()})
        yield f"vtm_loss/{which}", loss, rec.results[f"vtm_loss/{which}"]


def gradients(rec: Recording, model: S2Model, case: str, drop: Tensor | None) -> Iterator[Check]:
    """One training step without the update: the losses, times their recorded weight, and the gradients of their sum.

    As upstream, a loss that weighs nothing is not taken: its parameters have no gradient.
    """
    model.zero_grad()
    model.clamp_temp()
    mask, ids = rec.get("attention_mask"), rec.get("idx_dup")
    tokens, pooled = model.encode_video(rec.get("video"), drop)
    states, kv = model.encode_text(rec.get("input_ids"), mask), model.video_kv(tokens)
    corrupted = model.encode_text(rec.get("mlm_input_ids"), mask)
    every: dict[str, Callable[[], Tensor]] = {
        "vtc": lambda: vtc_loss(model.project_video(pooled), model.project_text(states), model.temp, ids),
        "vtm": lambda: vtm_loss(model, states, mask, kv, rec.get("idx_dup_vision_neg"), rec.get("idx_dup_text_neg"))[0],
        "mlm": lambda: mlm_loss(model.mlm_logits(model.fuse(corrupted, mask, kv)), rec.get("mlm_labels")),
    }
    weights = rec.config["criterion"]["loss_weight"]
    losses = {name: weights[name] * loss() for name, loss in every.items() if weights[name]}
    torch.stack(list(losses.values())).sum().backward()
    for name in every:
        yield f"{case}/loss_{name}", losses.get(name, torch.zeros(())), float(rec.results[case][f"loss_{name}"])
    parameters = dict(model.named_parameters())
    yield from rec.checks(case, {f"grad/{name}": parameter.grad for name, parameter in parameters.items()})
    yield from gradient_norms(case, parameters, rec.results[f"{case}_grad_norm"])


def gradient_norms(case: str, parameters: dict[str, nn.Parameter], recorded: dict[str, Any]) -> Iterator[Check]:
    """The norm of every parameter's gradient, and which parameters have none."""
    ours = {name: None if p.grad is None else p.grad.norm().item() for name, p in parameters.items()}
    yield (
        f"{case}_grad_norm/names",
        sorted(n for n in ours if ours[n] is not None),
        sorted(n for n in recorded if recorded[n] is not None),
    )
    floor = NORM_FLOOR * max(norm for norm in recorded.values() if norm is not None)
    for name, norm in recorded.items():
        if norm is not None and max(norm, ours.get(name) or 0.0) > floor:
            yield f"{case}_grad_norm/{name}", ours.get(name) or 0.0, float(norm)
