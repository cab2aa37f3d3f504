"""Weight files read and written one tensor at a time, so that memory holds one tensor and not one file.

The layout written is the one safetensors' own writer gives, to the byte: a file that went through here and a file that
`save_pretrained` wrote of the same tensors have the same sha256.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ivcore.errors import UserError

# In the order in which safetensors lays tensors out: widest first, then by name.
DTYPES = {
    "I64": torch.int64,
    "F64": torch.float64,
    "F32": torch.float32,
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I16": torch.int16,
    "U8": torch.uint8,
    "I8": torch.int8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass
class Weights:
    """The entries of one safetensors file or more: what they are (`meta`), and their values on request.

    `meta` holds tensors on the meta device (dtype and shape, no memory). `plain` holds entries of a torch file that are
    no tensors: name -> type.
    """

    meta: dict[str, Tensor] = field(default_factory=dict)
    place: dict[str, Path] = field(default_factory=dict)
    plain: dict[str, str] = field(default_factory=dict)

    def read(self, name: str) -> Tensor:
        """The value of an entry, on the CPU; its memory is the file's, and given back with the tensor."""
        with safe_open(self.place[name], "pt") as f:
            found: Tensor = f.get_tensor(name)
            return found


def open_safetensors(path: Path) -> Weights:
    """What a file holds, without reading a value.

    Raises:
        UserError: if it is damaged, cut short, or holds a dtype that no model here has.
    """
    found = Weights()
    try:
        with safe_open(path, "pt") as f:
            for name in f.keys():  # noqa: SIM118  no mapping
                part = f.get_slice(name)
                if part.get_dtype() not in DTYPES:
                    raise UserError(f"{path}: {name} is {part.get_dtype()}; no model here is stored so")
                found.meta[name] = torch.empty(part.get_shape(), dtype=DTYPES[part.get_dtype()], device="meta")
                found.place[name] = path
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is cut short or no safetensors file ({reason}); fetch it again") from None
    return found


def write_safetensors(path: Path, meta: Mapping[str, Tensor], value: Callable[[str], Tensor]) -> None:
    """Write a safetensors file and flush it to disk, asking for one value after the other.

    Args:
        path: the file, written in place.
        meta: every name with a tensor of its dtype and shape, on any device.
        value: gives the tensor of a name, of that dtype and shape, on the CPU.
    """
    ranks = {dtype: i for i, dtype in enumerate(NAMES)}
    names = sorted(meta, key=lambda name: (ranks[meta[name].dtype], name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers wants to read this
    end = 0
    for name in names:
        start, end = end, end + meta[name].numel() * meta[name].element_size()
        header[name] = {
            "dtype": NAMES[meta[name].dtype],
            "shape": list(meta[name].shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as f:
        f.write(len(text).to_bytes(8, "little"))
        f.write(text)
        for name in names:
            tensor = value(name)
            if tensor.shape != meta[name].shape or tensor.dtype != meta[name].dtype:
                raise ValueError(f"{name}: {tensor.dtype} {list(tensor.shape)} is not what the header says")
            if tensor.numel():
                f.write(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        f.flush()
        os.fsync(f.fileno())
