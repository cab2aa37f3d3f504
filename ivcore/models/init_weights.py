"""The weights a model starts from when it is trained from scratch, each seeded by its name.

| parameter                            | start                                                                |
| ------------------------------------ | -------------------------------------------------------------------- |
| biases, class slots                  | 0                                                                    |
| norm weights                         | 1                                                                    |
| layer scale                          | the size's layer_scale_init (left as built)                          |
| vision position tables               | 3-D sines (position_embedding.sincos)                                |
| patch convolution                    | uniform +-1/sqrt(fan-in), torch's default, as upstream               |
| vision Linear weights, class token   | truncated normal init_std; block i's attn.proj and mlp.fc2 / sqrt(2 i)   |
| BERT, LLaMA and heads                | normal init_std, the padding row 0                                    |
| keys, values of the video in BERT    | normal 0.02: the tokens they read are not normalised, their norm is ~30 |
| text_projection, projection_layer    | normal 1/sqrt(hidden)                                                |
| MobileCLIP positions                 | normal 1/sqrt(hidden)                                                |
| temp                                 | the size's temp (left as built)                                      |

Each parameter has a generator of its own, seeded with the model's seed and the parameter's name: adding a layer
changes no other weight, and one seed gives the same weights on every device. Drawn in float32 on the CPU.
"""

import math
import re
import zlib

import torch
from torch import Tensor, nn

from ivcore.models import position_embedding
from ivcore.models.dimensions import VisionShape

VIDEO_KV_STD = 0.02  # a wider start saturates the attention over the video, and matching hardly learns


@torch.no_grad()
def initialise(model: nn.Module, seed: int, vision: VisionShape, std: float) -> None:
    """Fill every parameter of an s2 or clip model from `seed`; parameters on the meta device are left alone."""
    for name, parameter in model.named_parameters():
        if parameter.device.type == "meta" or name == "temp" or name.endswith(".gamma"):
            continue
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{name}".encode()))
        parameter.copy_(_start(name, parameter, generator, vision, std))


def _start(name: str, parameter: Tensor, generator: torch.Generator, vision: VisionShape, std: float) -> Tensor:
    value = torch.zeros(parameter.shape)
    if name.endswith("pos_embed") and name.startswith("vision_encoder."):
        is_image = "img_pos_embed" in name
        return position_embedding.sincos(vision.width, (1, *vision.grid[1:]) if is_image else vision.grid)
    if re.search(r"pos_embed_(spatial|temporal|cls)$", name):
        return _split_table(name, vision)
    if name.endswith("patch_embed.proj.weight"):
        bound = 1.0 / math.sqrt(value[0].numel())
        return value.uniform_(-bound, bound, generator=generator)
    if parameter.ndim == 1:
        is_norm = re.search(r"(norm\w*|LayerNorm|layernorm|vision_align\.0|_proj\.1|pre_norm_\w+\.0)\.weight$", name)
        return value.fill_(1.0 if is_norm else 0.0)
    if name.endswith(("text_projection", "projection_layer")):
        return value.normal_(0.0, value.shape[0] ** -0.5, generator=generator)
    if name.endswith("positional_embedding.pos_embed.pos_embed"):
        return value.normal_(0.0, value.shape[-1] ** -0.5, generator=generator)
    if name.startswith("vision_encoder."):
        nn.init.trunc_normal_(value, std=std, a=-2.0, b=2.0, generator=generator)
        branch_end = re.search(r"blocks\.(\d+)\.(attn\.proj|mlp\.fc2)\.weight$", name)
        return value.div_(math.sqrt(2.0 * (int(branch_end[1]) + 1))) if branch_end else value
    if name.endswith(("crossattention.self.key.weight", "crossattention.self.value.weight")):
        std = VIDEO_KV_STD
    value.normal_(0.0, std, generator=generator)
    if name.endswith(("word_embeddings.weight", "embed_tokens.weight")):
        value[0] = 0.0  # id 0 is padding
    return value


def _split_table(name: str, vision: VisionShape) -> Tensor:
    _, num_h, num_w = vision.grid
    whole = position_embedding.sincos(vision.width, vision.grid)[0]  # [1 + T*H*W, C]
    quarter = vision.width // 4
    if name.endswith("cls"):
        return whole[None, :1]
    if name.endswith("temporal"):
        part = whole[1 :: num_h * num_w].clone()  # [T, C]
        part[:, quarter:] = 0.0
    else:
        part = whole[1 : 1 + num_h * num_w].clone()  # [H*W, C]
        part[:, :quarter] = 0.0
    return part[None]
