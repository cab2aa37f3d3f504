"""An imported model folder as the checkpoint that a run begins from, or judges as it is."""

import json
import shutil
from pathlib import Path
from typing import Any

from ivcore.config import FramesConfig, ModelConfig
from ivcore.errors import UserError
from ivcore.store.artifacts import Draft
from ivcore.store.known_files import sha256_file

PARTS = ("config.json", "tokenizer.json", "*.safetensors", "*.safetensors.index.json")  # nothing else is read


def recipe(kind: str, model: ModelConfig, frames: FramesConfig) -> dict[str, Any]:
    """The sha256 of every file of the folder, and the text length; where the folder lies does not matter.

    Raises:
        UserError: no such folder, a model of the other form, or one that takes other frames than `frames` gives.
    """
    folder, field = _folder(kind, model), f"model.{kind}_init"
    files = {path.name: path for pattern in PARTS for path in sorted(folder.glob(pattern))}
    for name in PARTS[:2]:
        if name not in files:
            cure = " (iv import --tokenizer puts it there)" if name == "tokenizer.json" else ""
            raise UserError(f"{field} = {str(folder)!r} holds no {name}; give a folder that `iv import` made{cure}")
    config = json.loads(files["config.json"].read_text())
    if config.get("model_type") != f"ivflow_{kind}":
        raise UserError(
            f"{field} = {str(folder)!r} holds {config.get('model_type')}, not {kind}; give the other folder"
        )
    takes, pixels = config["vision"]["num_frames"], config["vision"]["image_size"]
    if (takes, pixels) != (frames.num_frames, frames.size_px):
        raise UserError(
            f"{field} takes {takes} frames of {pixels} pixels, the run has frames.num_frames = {frames.num_frames} and "
            f"frames.size_px = {frames.size_px}; set these, or import with --frames and --pixels"
        )
    text_len = model.s2_text_len if kind == "s2" else model.clip_text_len
    return {"imported": {name: sha256_file(path) for name, path in files.items()}, "text_len": text_len}


def write_checkpoint(draft: Draft, kind: str, model: ModelConfig, config: dict[str, Any]) -> None:
    """Copy the files of `config` (the recipe) into the draft and load them once, strictly."""
    from ivcore.checkpoints import checkpoint
    from ivcore.models.freeze import digest

    folder = _folder(kind, model)
    for name, sha256 in config["imported"].items():
        shutil.copyfile(folder / name, draft.path / name)
        if sha256_file(draft.path / name) != sha256:
            raise UserError(f"{folder / name} changed while it was read; run again")
    loaded, _ = checkpoint.load(draft.path)
    sizes = {name: p.numel() for name, p in loaded.named_parameters()}
    everything = digest(loaded, sizes)
    draft.facts |= {
        "phase": "imported",
        "steps": 0,
        "samples": 0,
        "text_len": config["text_len"],
        "trained_names": [],
        "params_total": sum(sizes.values()),
        "params_trained": 0,
        "digest_before": everything,
        "digest_after": everything,
        "vision_digest": digest(loaded, [n for n in sizes if n.startswith("vision_encoder.")]),
        "condition": {"vtc": 1.0, "vtm": float(kind == "s2"), "batches": "random"},  # as published
    }
    draft.count(ok=len(sizes))


def _folder(kind: str, model: ModelConfig) -> Path:
    folder = Path(getattr(model, f"{kind}_init")).expanduser()
    if not folder.is_dir():
        raise UserError(f"model.{kind}_init = {str(folder)!r} is no folder; give one that `iv import` made")
    return folder
