"""What the user points at (a file, a shard index, a folder) -> its entries, its hashes, its role.

| role       | holds                                              | published as                            |
| ---------- | -------------------------------------------------- | --------------------------------------- |
| s2         | vision tower, BERT, heads                          | InternVideo2-stage2_1b-224p-f4.pt       |
| tower      | a distilled vision tower, names without prefix     | S14/B14/L14 `*_dist_1B_stage2`          |
| llama      | InternVL's text tower, LoRA branches included      | internvl_c_13b_224px.pth                |
| mobileclip | Apple's text tower                                 | mobileclip_blt.pt                       |
| delta      | the few tensors that clip's training moved         | 1B_clip.pth, clip/B14/pytorch_model.bin |
| clip       | a whole clip model                                 | nowhere; what `iv export` writes        |
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ivcore.checkpoints import pickled
from ivcore.checkpoints.weights import Weights, open_safetensors
from ivcore.errors import UserError
from ivcore.store.known_files import sha256_file

PICKLES = (".pth", ".pt", ".bin")
WHOLE = ("model.safetensors", "pytorch_model.bin")  # what a folder may hold, unless it holds an index of shards

# (role, patterns of which each must match the beginning of some name). First match wins: InternVL's file holds a vision
# tower of its own, and a whole clip model holds a text tower.
SIGNATURES = (
    ("s2", (r"vision_encoder\.blocks\.", r"text_encoder\.(bert\.|encoder\.)|itm_head\.|vision_proj\.")),
    ("clip", (r"vision_encoder\.blocks\.", r"text_encoder\.(transformer|embedding_layer|text_projection)")),
    ("s2", (r"vision_encoder\.blocks\.",)),  # the tower alone, cut out of its file
    ("llama", (r"transformer\.layers\.",)),
    ("mobileclip", (r"text_encoder\.transformer\.\d+\.pre_norm_mha",)),
    ("tower", (r"blocks\.", r"patch_embed\.proj\.")),
    ("delta", (r"vision_encoder\.clip_projector\.|vision_align\.|text_encoder\.text_projection|temp$",)),
)


@dataclass
class Source:
    """One thing the user pointed at."""

    path: Path
    label: str  # its name, with as many folders in front as tell it from the others
    files: list[dict[str, Any]]  # name, bytes, sha256
    weights: Weights
    role: str
    beside: list[str] = field(default_factory=list)  # lay next to the state dict: counters, optimiser


def open_source(path: Path, scratch: Path) -> Source:
    """Open a .safetensors or torch file, an index of shards (`*.index.json`), or a folder that holds one of them.

    Args:
        path: what the user gave.
        scratch: an existing folder; torch files are rewritten into it as safetensors.

    Raises:
        UserError: in one line naming the file: not there, damaged, hostile, of no known kind, or a shard missing.
    """
    if not path.exists():
        raise UserError(f"{path} is not there; give a weight file, an index of shards or a folder that holds one")
    listed: dict[str, str] = {}
    whole = _in_folder(path) if path.is_dir() else path
    if whole.name.endswith(".index.json"):
        shards, listed = _shards(whole)
    else:
        shards = [whole]
    opened, plain, beside = [], {}, []
    for i, shard in enumerate(shards):
        if shard.suffix == ".safetensors":
            opened.append(open_safetensors(shard))
        elif shard.suffix in PICKLES:
            plain_path = scratch / f"{len(list(scratch.iterdir()))}-{i}.safetensors"
            said = pickled.convert(shard, plain_path)
            plain.update(said["plain"])
            beside += said["beside"]
            opened.append(open_safetensors(plain_path))
        else:
            raise UserError(f"{shard}: weights are {', '.join(('.safetensors', *PICKLES))} or an .index.json")
    weights = _united(opened, whole)
    weights.plain = plain
    if absent := sorted(set(listed) - set(weights.meta)):
        raise UserError(f"{whole}: {absent[0]} is not in {listed[absent[0]]}, where the index has it; fetch it again")
    files = [{"name": f.name, "bytes": f.stat().st_size, "sha256": sha256_file(f)} for f in shards]
    return Source(path, path.name, files, weights, role_of(weights.meta, path), beside)


def label(sources: list[Source]) -> None:
    """Give each source its label: published files of different roles share names like pytorch_model.bin.

    Raises:
        UserError: if one file is given twice.
    """
    parts = [source.path.absolute().parts for source in sources]
    if len(set(parts)) < len(parts):
        raise UserError(f"{next(s.path for i, s in enumerate(sources) if parts[i] in parts[:i])} is given twice")
    for source, own in zip(sources, parts, strict=True):
        num = 1
        while sum(other[-num:] == own[-num:] for other in parts) > 1:
            num += 1
        source.label = "/".join(own[-num:])


def role_of(names: Iterable[str], path: Path) -> str:
    """Which of upstream's files these names make.

    Raises:
        UserError: if none, with the first names.
    """
    names = list(names)
    for role, patterns in SIGNATURES:
        if all(any(re.match(p, n) for n in names) for p in patterns):
            return role
    raise UserError(
        f"{path} is no {', '.join(dict.fromkeys(role for role, _ in SIGNATURES))} file: its names begin with "
        f"{', '.join(sorted(names)[:3])}; docs/models.md says which files each model is made of"
    )


def _in_folder(folder: Path) -> Path:
    indices = sorted(folder.glob("*.index.json"))
    found = indices or [folder / name for name in WHOLE if (folder / name).is_file()]
    if not found:
        raise UserError(f"{folder} holds neither {' nor '.join(WHOLE)} nor an index of shards (*.index.json)")
    return found[0]


def _shards(index: Path) -> tuple[list[Path], dict[str, str]]:
    try:
        listed = dict(json.loads(index.read_text())["weight_map"])
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{index} is no index of shards (a JSON file with weight_map); fetch it again") from None
    names = sorted({str(name) for name in listed.values()})
    for name in names:
        if Path(name).name != name:
            raise UserError(f"{index} names a shard {name!r} outside its folder; shards lie beside their index")
        if not (index.parent / name).is_file():
            raise UserError(f"{index.parent / name} is missing, one of {len(names)} shards of {index.name}; fetch it")
    return [index.parent / name for name in names], listed


def _united(opened: list[Weights], shown: Path) -> Weights:
    found = Weights()
    for part in opened:
        if both := sorted(set(found.meta) & set(part.meta)):
            raise UserError(f"{shown}: {both[0]} is in more than one shard; take one of them out")
        found.meta.update(part.meta)
        found.place.update(part.place)
    return found
