"""`iv export`: a model folder -> one file under upstream's names, which `iv import` takes back to the same bytes."""

from pathlib import Path

import torch
from transformers import AutoConfig

import ivcore.models  # noqa: F401  registers the two configurations
from ivcore.checkpoints.sources import WHOLE
from ivcore.checkpoints.weights import Weights, open_safetensors, write_safetensors
from ivcore.errors import UserError
from ivcore.models import S2Config
from ivcore.models.base import TIED
from ivcore.store import durable, soundness

SUFFIX = {False: ".safetensors", True: ".pth"}


def export(folder: Path, out: Path, pth: bool = False) -> dict[str, int]:
    """Write the model of `folder` into the file `out`; returns the number of entries and the bytes written.

    The names are those of upstream's own state dict, tied tensors under both. Left out is what upstream computes when
    it builds the model (rotary tables, position ids) and the LoRA branches, which are merged here.

    Args:
        folder: model.safetensors and config.json.
        out: a file that is not there yet, .safetensors, or .pth with `pth`.
        pth: write plain tensors with torch.save (a bare dict) instead of safetensors.

    Raises:
        UserError: in one line, if the folder is no model of ours or the file cannot be `out`.
    """
    if out.suffix != SUFFIX[pth]:
        raise UserError(f"--out {out}: the file ends in {SUFFIX[pth]}{'' if pth else ' (or give --pth)'}")
    if out.exists():
        raise UserError(f"--out {out} is there already; give another name or delete it")
    if not out.absolute().parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.absolute().parent}; make it first")
    weights = _open(folder)
    place = {name: name for name in weights.meta}
    if _is_s2(folder):
        place.update({copy: kept for copy, kept in TIED.items() if kept in weights.meta})
    with durable.written(out) as aside:
        if pth:
            with aside.open("wb") as f:
                torch.save({name: weights.read(kept).clone() for name, kept in sorted(place.items())}, f)
        else:
            meta = {name: weights.meta[kept] for name, kept in place.items()}
            write_safetensors(aside, meta, lambda name: weights.read(place[name]))
    return {"entries": len(place), "bytes": out.stat().st_size}


def _open(folder: Path) -> Weights:
    file = folder / WHOLE[0]
    if not file.is_file() or not (folder / "config.json").is_file():
        raise UserError(f"{folder} is no model folder: it lacks {WHOLE[0]} or config.json")
    soundness.check_all(folder)
    return open_safetensors(file)


def _is_s2(folder: Path) -> bool:
    try:
        config = AutoConfig.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / 'config.json'} is no config: {error}") from None
    if config.model_type not in ("ivflow_s2", "ivflow_clip"):
        raise UserError(f"{folder} holds a {config.model_type} model; only s2 and clip can be exported")
    return isinstance(config, S2Config)
