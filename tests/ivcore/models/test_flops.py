"""The formulas against torch's own counter, and the published rows against their table."""

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ivcore.models import ClipModel, S2Model, flops
from ivcore.models.config import clip_config, s2_config, with_bert
from ivcore.models.layers import AttentionPool
from ivcore.verdict import published


def counted(call) -> int:
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        call()
    return counter.get_total_flops()


def on_meta(kind, config):
    with torch.device("meta"):
        return kind(config).eval().requires_grad_(False)  # the counter's hooks want no leaves


@pytest.mark.parametrize("size", ["tiny", "S14", "1B"])
def test_s2(size):
    config = s2_config(size, 100 if size == "tiny" else None)
    vision, text = config.vision_shape(), config.text_shape()
    model, length, num = on_meta(S2Model, config), 7, vision.num_patches + 1
    with torch.device("meta"):
        video = torch.empty(1, vision.num_frames, 3, vision.image_size, vision.image_size)
        ids, mask = torch.zeros(1, length, dtype=torch.int64), torch.ones(1, length, dtype=torch.int64)
    assert counted(lambda: model.encode_tokens(video)) == flops.trunk(vision)
    on_cpu = AttentionPool(vision.width, vision.pool_heads, vision.pool_width).requires_grad_(False)
    assert counted(lambda: on_cpu(torch.ones(2, num, vision.width))) == 2 * flops.pool(vision)
    assert counted(lambda: model.encode_text(ids, mask)) == flops.bert_text(text, length)


@pytest.mark.parametrize("size, change", [("tiny", None), ("S14", None), ("tiny", with_bert)])
def test_clip_text(size, change):
    config = clip_config(size, 100 if size == "tiny" else None)
    config = change(config) if change else config
    model, text = ClipModel(config).eval().requires_grad_(False), config.text_shape()
    length = 7 if size == "tiny" else text.max_position_embeddings
    ids = torch.ones(1, length, dtype=torch.int64)
    assert counted(lambda: model.encode_text(ids)) == flops.clip_text(text, length, config.embed_dim)


def test_computed_rows_say_so_and_fit_where_they_fit():
    rows = list(flops.rows())
    assert {r["source"] for r in rows} == {"computed"} and not any("r1" in r for r in rows)
    (big,) = [r for r in rows if (r["model"], r["size"], r["head"], r["dtype"]) == ("s2", "6B", "sim", "float32")]
    assert "A100-40GB" in big["fits"] and "L4" not in big["fits"]  # about 25 GB of weights
    one = {h: r for h in ("sim", "match") for r in rows if (r["model"], r["size"], r["head"]) == ("s2", "1B", h)}
    # tokens read folded: 128 candidates, 32 rows in 4 layers and one in the last, 16 heads, twice 1025 tokens of 1408
    read = 128 * (4 * 32 + 1) * 16 * 2 * 2 * 1025 * 1408 / 1e9
    projected = 128 * 5 * 2 * 2 * 1025 * 1408 * 1024 / 1e9  # what keys and values alone would take
    assert read < one["match"]["query_gflop"] - one["sim"]["query_gflop"] < 0.6 * projected
    assert one["match"]["index_bytes_per_video"] == 4 * 512 + 1025 * 1408 * 2


def test_published_rows_hold_the_table():
    rows = published.rows()
    assert {r["source"] for r in rows} == {"published"} and all(r["url"].startswith("https://") for r in rows)
    assert len([r for r in rows if r["task"] == "retrieval"]) == 2 * (2 * 6 + 5 * 6)
    (zh,) = [r for r in rows if (r["size"], r["language"], r["direction"]) == ("S14", "zh", "t2v")]
    assert (zh["dataset"], zh["r1"]) == ("vatex_zh", 1.9)
    assert {r["task"] for r in published.rows("ssv2_mc")} == {"multiple_choice"}
    assert not any(name in r for r in rows for name in ("query_ms_p50", "r1_ci95"))
