"""Arithmetic and memory by formula, for what nobody has measured: `source` is "computed".

Shapes: N video tokens (class token included), L text tokens, C vision width, H hidden, E embedding, V videos, k
candidates. A multiply and an add are two operations; what is not a matrix product (norms, GELU, softmax) is left out,
as torch's flop counter does.
"""

import functools
import tomllib
from collections.abc import Iterator
from importlib import resources
from typing import Any

from ivcore.models.config import clip_config, s2_config, size_names
from ivcore.models.dimensions import BertShape, ClipTextShape, LlamaShape, VisionShape

BYTES = {"float32": 4, "bfloat16": 2}
VOCABULARY = 1000  # of a size that has none of its own: tiny's is learned from the captions
PUBLISHED_K, TEXT_LEN = 128, 32
GALLERY = 1000  # videos searched


def linear(num: int, wide: int, out: int) -> int:
    """[num, wide] -> [num, out]."""
    return 2 * num * wide * out


def attention(queries: int, keys: int, width: int) -> int:
    """Scores and weighted sum, all heads together."""
    return 4 * queries * keys * width


def trunk(shape: VisionShape) -> int:
    """One video through patches and blocks."""
    num, c = shape.num_patches + 1, shape.width
    patch = 3 * shape.patch_size**2 * shape.tubelet_size
    block = linear(num, c, 4 * c) + attention(num, num, c) + 2 * linear(num, c, shape.mlp_hidden)
    return linear(shape.num_patches, patch, c) + shape.depth * block


def pool(shape: VisionShape) -> int:
    """One video's tokens [N, C] -> pooled [P], in the folded form: no keys and values of all tokens."""
    num, c = shape.num_patches + 1, shape.width
    return 3 * linear(1, c, c) + shape.pool_heads * attention(1, num, c) + linear(1, c, shape.pool_width)


def _layer(length: int, hidden: int, inner: int) -> int:
    """A layer of BERT: four matrices, attention, two matrices."""
    return 4 * linear(length, hidden, hidden) + attention(length, length, hidden) + 2 * linear(length, hidden, inner)


def bert_text(shape: BertShape, length: int) -> int:
    """One text through the layers below the fusion."""
    return shape.fusion_layer * _layer(length, shape.hidden_size, shape.intermediate_size)


def matching(shape: BertShape, length: int, num: int, width: int, k: int, folded: bool) -> int:
    """One text against k videos [N, width], as `serving.Matcher`: keys and values kept, or tokens folded."""
    h, layers = shape.hidden_size, shape.num_hidden_layers - shape.fusion_layer
    total = 4 * linear(length, h, h) + attention(length, length, h)  # the first self-attention sees no video
    for layer in range(layers):
        last = layer == layers - 1
        rows = k if last else k * length
        if layer:
            total += linear(k * length, h, 2 * h) + 2 * linear(rows, h, h) + attention(rows, length, h)
        heads = shape.num_attention_heads
        read = heads * attention(rows, num, width) + 2 * linear(rows, width, h) if folded else attention(rows, num, h)
        total += 2 * linear(rows, h, h) + read + 2 * linear(rows, h, shape.intermediate_size)
    return total + linear(k, h, 2)


def clip_text(shape: ClipTextShape, length: int, embed: int) -> int:
    """One text through clip's tower and its projection; the causal half of the attention is computed and masked."""
    matrices = 3 if isinstance(shape, LlamaShape) else 2
    h, inner = shape.hidden_size, shape.intermediate_size
    layer = 4 * linear(length, h, h) + attention(length, length, h) + matrices * linear(length, h, inner)
    return shape.num_hidden_layers * layer + linear(1, h, embed)


def query(config: Any, head: str, length: int, videos: int, k: int) -> int:
    """One text query: encode, compare with `videos` embeddings, for match look at k candidates.

    Args:
        config: S2Config or ClipConfig.
        head: sim, match (the candidates' keys and values are kept) or match_folded (none is).
        length: text tokens.
    """
    text, vision = config.text_shape(), config.vision_shape()
    if not isinstance(text, BertShape):
        return clip_text(text, length, config.embed_dim) + linear(1, config.embed_dim, videos)
    out = bert_text(text, length) + linear(1, text.hidden_size, config.embed_dim) + linear(1, config.embed_dim, videos)
    if head.startswith("match"):
        num, width, folded = vision.num_patches + 1, config.fusion_width or vision.width, head == "match_folded"
        narrow = linear(num, vision.width, width) if config.fusion_width and folded else 0
        out += matching(text, length, num, width, k, folded) + k * narrow
    return out


def activation_bytes(shape: VisionShape, dtype: str, batch: int = 1) -> int:
    """Most that a forward pass of the trunk holds at once beside the weights, attention fused.

    The larger of: residual, its norm, queries, keys, values and the answer (6 C a token); residual, its norm and the
    hidden layer before and after GELU (2 C + 2 hidden).
    """
    a_token = max(6 * shape.width, 2 * shape.width + 2 * shape.mlp_hidden)
    return batch * (shape.num_patches + 1) * a_token * BYTES[dtype]


@functools.cache
def parameters(model: str, size: str) -> int:
    """Parameters that answering needs: without the decoders of a distillation and the masked-language head."""
    import torch

    from ivcore.models import ClipModel, S2Model

    with torch.device("meta"):
        built = S2Model(_config("s2", size)) if model == "s2" else ClipModel(_config("clip", size))
    idle = ("vision_encoder.clip_decoder", "vision_encoder.final_clip_decoder", "text_encoder.cls")
    return sum(p.numel() for name, p in built.named_parameters() if not name.startswith(idle))


def _config(model: str, size: str, frames: int | None = None) -> Any:
    more = {} if frames is None else {"num_frames": frames}
    vocabulary = VOCABULARY if size == "tiny" else None
    return (s2_config if model == "s2" else clip_config)(size, vocabulary, **more)


def gpus() -> dict[str, float]:
    """Memory by name, GB."""
    return dict(tomllib.loads((resources.files("ivcore.models") / "gpus.toml").read_text(encoding="utf-8")))


def rows(k: int = PUBLISHED_K, length: int = TEXT_LEN, videos: int = GALLERY) -> Iterator[dict[str, Any]]:
    """One row a model, size, head and dtype: arithmetic of a query and of indexing a video, bytes, and what it fits."""
    for size in size_names():
        for model, heads in (("s2", ("sim", "match")), ("clip", ("sim",))):
            config = _config(model, size)
            vision = config.vision_shape()
            for head in heads:
                for dtype, each in BYTES.items():
                    weights, active = parameters(model, size) * each, activation_bytes(vision, dtype)
                    tokens = (vision.num_patches + 1) * vision.width * 2 if head == "match" else 0
                    yield {
                        "model": model,
                        "size": size,
                        "head": head,
                        "k": k if head == "match" else None,
                        "frames": vision.num_frames,
                        "dtype": dtype,
                        "max_text_len": length,
                        "source": "computed",
                        "n_videos": videos,
                        "query_gflop": round(query(config, f"{head}_folded", length, videos, k) / 1e9, 4),
                        "video_gflop": round((trunk(vision) + pool(vision)) / 1e9, 3),
                        "weight_bytes": weights,
                        "activation_bytes": active,
                        "index_bytes_per_video": 4 * config.embed_dim + tokens,
                        "fits": [name for name, gb in gpus().items() if weights + active <= gb * 1e9],
                    }
