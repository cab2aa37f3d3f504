"""Holds the models to numbers that upstream's own code gave: recordings of small random models, topic by topic.

A topic is a pair of files: TOPIC.safetensors with `state/...` (weights), `in/...` (inputs) and `out/...` (what
upstream returned), TOPIC.json with configuration and results that are not tensors. Dimensions, depths, frames and
values are read from there, so any folder in this format will do.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from ivcore.errors import UserError

FORWARD_BOUND = 1e-5  # of the largest entry; upstream itself moves by 2e-6 on another matrix product path
GRADIENT_BOUND = 1e-4
NOT_BUILT = {
    r"get_sim_3d/max.*|vtc_loss_3d/max.*": "similarity by maximum: no recipe uses it",
    r"uta_loss/.*": "alignment to a teacher: weight 0 in every published recipe",
}

Check = tuple[str, Any, Any]  # name, ours, theirs


@dataclass(frozen=True)
class Result:
    """One comparison. `max_rel` is the largest difference over the largest recorded entry; names and flags: 0 or 1."""

    topic: str
    case: str
    max_abs: float
    max_rel: float
    bound: float
    ok: bool
    note: str = ""


@dataclass
class Recording:
    """One topic read from disk. `out` notes what was asked for, so that nothing recorded goes uncompared."""

    topic: str
    about: dict[str, Any]
    tensors: dict[str, Tensor]
    asked: set[str] = field(default_factory=set)

    @property
    def config(self) -> dict[str, Any]:
        """The recorded configuration."""
        config: dict[str, Any] = self.about["config"]
        return config

    @property
    def results(self) -> dict[str, Any]:
        """Recorded losses, names and flags."""
        results: dict[str, Any] = self.about.get("results", {})
        return results

    def get(self, name: str) -> Tensor:
        """An input by its name without `in/`."""
        return self.tensors[f"in/{name}"]

    def state(self, prefix: str = "state") -> dict[str, Tensor]:
        """The entries below PREFIX/, by the rest of their names."""
        return {n.removeprefix(f"{prefix}/"): t for n, t in self.tensors.items() if n.startswith(f"{prefix}/")}

    def cases(self) -> list[str]:
        """The first parts of the names below out/, in order."""
        return list(dict.fromkeys(n.split("/")[1] for n in self.tensors if n.startswith("out/")))

    def checks(self, case: str, ours: dict[str, Any]) -> Iterator[Check]:
        """Everything recorded below out/CASE (or as out/CASE itself) that `ours` has an answer to."""
        for name, value in ours.items():
            full = f"out/{case}/{name}" if name else f"out/{case}"
            if full in self.tensors:
                self.asked.add(full)
                value = value() if callable(value) else value
                yield full.removeprefix("out/"), value, self.tensors[full]

    def unasked(self) -> list[str]:
        """Recorded outputs that no check asked for."""
        return sorted(n for n in self.tensors if n.startswith("out/") and n not in self.asked)


def read(folder: Path, topic: str) -> Recording:
    """Read one topic; clips stored in half precision are exact and come back as float32.

    Raises:
        UserError: if the files are not there or not readable.
    """
    try:
        about = json.loads((folder / f"{topic}.json").read_text())
        tensors = load_file(folder / f"{topic}.safetensors")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the recording {topic} in {folder}: {error}") from None
    if lent := about.get("weights"):  # the weights of another topic's model
        other = read(folder, lent.removesuffix(".safetensors"))
        tensors |= {n: t for n, t in other.tensors.items() if n.startswith("state/")}
        about["config"]["model"] = other.config["model"]
    return Recording(topic, about, {n: t.float() if t.dtype == torch.float16 else t for n, t in tensors.items()})


def scaled(state: dict[str, Tensor], rules: list[list[Any]]) -> dict[str, Tensor]:
    """The weights of a *small* case: [pattern over the whole name, factor, leading part of the rows or null = all]."""
    found = dict(state)
    for name, value in state.items():
        for pattern, factor, part in rules:
            if re.fullmatch(pattern, name):
                rows = len(value) if part is None else round(part * len(value))
                found[name] = torch.cat([value[:rows] * factor, value[rows:]])
    return found


def compare(topic: str, case: str, ours: Any, theirs: Any) -> Result:
    """Compare tensors or numbers within the bound, everything else for equality."""
    result = partial(Result, topic, case)
    if not isinstance(theirs, Tensor | float):
        same = ours == theirs
        return result(float(not same), float(not same), 0.0, same, "" if same else _difference(ours, theirs))
    bound = GRADIENT_BOUND if "grad" in case else FORWARD_BOUND
    a, b = (torch.as_tensor(x).detach().to(torch.float64) for x in (ours, theirs))
    if a.shape != b.shape:
        return result(float("inf"), float("inf"), bound, False, f"shape {list(a.shape)}, recorded {list(b.shape)}")
    max_abs = (a - b).abs().max().item() if b.numel() else 0.0
    largest = b.abs().max().item() if b.numel() else 0.0
    max_rel = max_abs / largest if largest else max_abs
    return result(max_abs, max_rel, bound, max_rel <= bound)  # NaN is never <=


def _difference(ours: Any, theirs: Any) -> str:
    if isinstance(ours, list | set) and isinstance(theirs, list | set):
        return f"only ours {sorted(set(ours) - set(theirs))[:5]}, only theirs {sorted(set(theirs) - set(ours))[:5]}"
    return f"ours {ours!r}, recorded {theirs!r}"
