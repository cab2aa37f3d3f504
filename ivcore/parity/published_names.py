"""The published sizes: every entry of upstream's state dicts, name and shape, against models built without memory."""

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ivcore.errors import UserError
from ivcore.models.base import IGNORED_KEYS
from ivcore.models.clip import build_clip
from ivcore.models.config import size_names
from ivcore.models.convert import canonical_s2_name, is_lora
from ivcore.models.s2 import build_s2
from ivcore.parity.recording import Check

TOPIC = "real_model_names"
FILE = f"{TOPIC}.json.gz"


def published(path: Path) -> Iterator[Check]:
    """Per model of the file (`s2_1b_full`, `clip_b14_vision`, ...): all names with shapes, and the parameter count.

    Left out on both sides, by rule: buffers that are computed here (`IGNORED_KEYS`), LoRA branches (merged into their
    matrix at load), and of the text encoder without pretraining head (`..._is_pretrain_false`) our head.
    """
    sizes = {name.lower(): name for name in size_names()}
    for key, entry in json.loads(gzip.decompress(path.read_bytes()))["models"].items():
        found = re.fullmatch(r"(s2|clip)_([a-z0-9]+)_(vision|full)(_is_pretrain_false)?", key)
        if found is None or found[2] not in sizes:
            raise UserError(
                f"{path} lists a model {key!r}, of which there is no size here: {', '.join(sizes.values())}"
            )
        with torch.device("meta"):
            model: Any = (build_s2 if found[1] == "s2" else build_clip)(sizes[found[2]], None, seed=0)
        part: nn.Module = model.vision_encoder if found[3] == "vision" else model
        own = {name: list(t.shape) for name, t in part.state_dict().items()}
        count = sum(p.numel() for p in part.parameters())
        if found[4]:
            own = {n: s for n, s in own.items() if not n.startswith("text_encoder.cls.")}
            head = {id(p): p.numel() for p in model.text_encoder.cls.parameters()}
            shared = {id(p) for p in model.text_encoder.bert.parameters()}
            count -= sum(num for i, num in head.items() if i not in shared)
        recorded = {canonical_s2_name(n): s for n, s in entries(entry["state"]) if not n.endswith(IGNORED_KEYS)}
        lora = {n: s for n, s in recorded.items() if is_lora(n)}
        plain = {n.replace(".base_layer.", "."): s for n, s in recorded.items() if n not in lora}
        yield f"{key}/names and shapes", _lines(own), _lines(plain)
        yield f"{key}/parameters", count, entry["n_parameters"] - sum(a * b for a, b in lora.values())


def entries(state: list[Any]) -> Iterator[tuple[str, list[int]]]:
    """(name, shape) of each recorded entry, which is a pair or a record with these fields."""
    for entry in state:
        name, shape = (entry["name"], entry["shape"]) if isinstance(entry, dict) else entry[:2]
        yield name, list(shape)


def _lines(shapes: dict[str, list[int]]) -> list[str]:
    return sorted(f"{name} {shape}" for name, shape in shapes.items())
