"""A recording of a whole s2 model, made of our own model: other sizes, seeds and loss weights than upstream's has."""

import json
from dataclasses import asdict

import torch
from safetensors.torch import save_file

from ivcore.losses.mlm import mlm_loss
from ivcore.losses.vtc import vtc_loss
from ivcore.losses.vtm import vtm_loss
from ivcore.models.config import S2Config
from ivcore.models.s2 import S2Model
from ivcore.parity.s2 import bert_shape, vision_shape

B, L = 4, 7


def config(weights, depth=2, width=48, heads=3, frames=2, layers=3, hidden=32):
    """Upstream's configuration, as its recordings hold it."""
    vision = {
        "img_size": 28,
        "patch_size": 14,
        "num_frames": frames,
        "d_model": width,
        "depth": depth,
        "num_heads": heads,
        "mlp_ratio": 2.5,
        "attn_pool_num_heads": 2,
        "clip_embed_dim": 24,
        "sep_image_video_pos_embed": True,
    }
    bert = {
        "vocab_size": 50,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "fusion_layer": layers - 1,
        "num_attention_heads": 4,
        "intermediate_size": 40,
        "max_position_embeddings": 12,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "encoder_width": width,
    }
    model = {"vision_encoder": vision, "text_encoder": {"bert_config": bert}, "embed_dim": 16, "temp": 0.3}
    return {"model": model, "criterion": {"loss_weight": {"uta": 0.0, **weights}, "vtm_hard_neg": True}}


def write(folder, weights, seed=0, **sizes):
    """Record the model of these sizes into `folder`; its JSON, which may be changed and written again."""
    about = {"config": config(weights, **sizes), "calls": {}}
    draw = torch.Generator().manual_seed(seed)
    model = _model(about["config"]["model"], draw)
    vision = about["config"]["model"]["vision_encoder"]
    shape = (vision["num_frames"], 3, vision["img_size"], vision["img_size"])
    ids = torch.randint(3, 50, (B, L), generator=draw)
    chosen = torch.rand(B, L, generator=draw) < 0.5
    given = {
        "video": torch.randn(B, *shape, generator=draw),
        "image": torch.randn(B, 1, *shape[1:], generator=draw),
        "input_ids": ids,
        "attention_mask": (torch.arange(L) < torch.tensor([7, 5, 6, 7])[:, None]).long(),
        "vision_proj_frames": torch.randn(B, 2, 16, generator=draw),
        "mlm_input_ids": ids.masked_fill(chosen, 2),
        "mlm_labels": ids.masked_fill(~chosen, -100),
        "video_mask": _mask(model.num_patches, draw),
    }
    for name, sample in {"idx_unique": [0, 1, 2, 3], "idx_dup": [5, 5, 6, 7]}.items():
        given |= {name: torch.tensor(sample), f"{name}_vision_neg": torch.tensor([2, 3, 3, 0])}
        given[f"{name}_text_neg"] = torch.tensor([3, 2, 1, 2])
    results, grads = {}, {}
    for case, mask in {"forward": None, "forward_masked": given["video_mask"]}.items():
        results[case], results[f"{case}_grad_norm"], grad = _step(model, given, weights, mask)
        grads |= {f"out/{case}/grad/{n}": grad[n] for n in ("temp", "itm_head.weight", "vision_proj.bias") if n in grad}
    results |= {
        "temperature_clamp": {"0.0001": 0.001, "0.9": 0.5},
        "no_weight_decay": sorted(model.no_weight_decay()),
        "state_names_is_pretrain_false": [
            n.replace("text_encoder.bert.", "text_encoder.") for n in model.state_dict() if ".cls." not in n
        ],
        **{f"vtm_loss/{which}": _matching(model, given, which).item() for which in ("idx_unique", "idx_dup")},
    }
    about["results"] = results
    state = {f"state/{n}": t.clone() for n, t in model.state_dict().items()}
    save_file(state | {f"in/{n}": t for n, t in given.items()} | grads, folder / "s2_full.safetensors")
    (folder / "s2_full.json").write_text(json.dumps(about))
    return about


def _model(sizes, draw):
    shapes = {
        "vision": asdict(vision_shape(sizes["vision_encoder"])),
        "text": asdict(bert_shape(sizes["text_encoder"]["bert_config"])),
    }
    model = S2Model(S2Config(**shapes, embed_dim=sizes["embed_dim"], temp=sizes["temp"])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
        model.temp.fill_(sizes["temp"])
    return model


def _mask(patches, draw):
    """Half of the patches of each video are dropped, never the class token."""
    order = torch.rand(B, patches, generator=draw).argsort(dim=1)
    return torch.cat([torch.zeros(B, 1, dtype=torch.bool), order < patches // 2], dim=1)


def _matching(model, given, which, drop=None):
    states = model.encode_text(given["input_ids"], given["attention_mask"])
    kv = model.video_kv(model.encode_video(given["video"], drop)[0])
    negatives = given[f"{which}_vision_neg"], given[f"{which}_text_neg"]
    return vtm_loss(model, states, given["attention_mask"], kv, *negatives)[0]


def _step(model, given, weights, drop):
    """(losses times their weights, norms of the gradients of their sum, gradients); a weight of 0: no such loss."""
    model.zero_grad()
    mask, losses = given["attention_mask"], {}
    tokens, pooled = model.encode_video(given["video"], drop)
    if weights["vtc"]:
        text = model.project_text(model.encode_text(given["input_ids"], mask))
        losses["vtc"] = weights["vtc"] * vtc_loss(model.project_video(pooled), text, model.temp, given["idx_dup"])
    if weights["vtm"]:
        losses["vtm"] = weights["vtm"] * _matching(model, given, "idx_dup", drop)
    if weights["mlm"]:
        fused = model.fuse(model.encode_text(given["mlm_input_ids"], mask), mask, model.video_kv(tokens))
        losses["mlm"] = weights["mlm"] * mlm_loss(model.mlm_logits(fused), given["mlm_labels"])
    sum(losses.values()).backward()
    grad = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    norms = {n: None if p.grad is None else p.grad.norm().item() for n, p in model.named_parameters()}
    return {f"loss_{n}": losses[n].item() if n in losses else 0.0 for n in ("vtc", "vtm", "mlm")}, norms, grad
