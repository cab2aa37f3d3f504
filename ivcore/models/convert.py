"""Upstream's names into ours: give every entry of a file one place, merge LoRA, resize position tables.

Nothing is skipped in silence: a conversion says of every entry of a file under which name it went on (`kept`) or why
it did not (`dropped`), and what goes on is loaded strictly. Source: upstream's load_checkpoint functions
(models/internvideo2_stage2*.py, internvideo2_clip*.py), the published files' key lists.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ivcore.errors import UserError
from ivcore.models import position_embedding
from ivcore.models.dimensions import VisionShape

LORA_SCALE = 2.0  # alpha 32 / rank 16, upstream's LLaMA wrapper
COMPUTED = (r".*(rotary_emb\.inv_freq|embeddings\.position_ids)", "a buffer that is computed here")
IMAGE_TABLES = ("vision_encoder.img_pos_embed", "vision_encoder.clip_img_pos_embed")
TABLES = ("vision_encoder.pos_embed", "vision_encoder.clip_pos_embed", *IMAGE_TABLES)
_LORA = re.compile(r"(.*)\.lora_([AB])\.default\.weight")

# What a file holds that a model has no use for: (pattern over the whole name, why). First match wins.
DROP_S2 = (
    COMPUTED,
    (r"audio_encoder\..*|audio_proj\..*|av_concat_audio_proj\..*|av_fusion\..*|avtm_head\..*", "audio"),
)
DROP_S2_FOR_CLIP = (
    (r"vision_encoder\.(final_)?clip_decoder\..*", "an alignment decoder"),
    (r"vision_encoder\.(clip_pos_embed|clip_img_pos_embed|img_pos_embed)", "a position table clip does not have"),
    (r"(?!vision_encoder\.).*", "not the vision tower"),
)
DROP_TOWER = ((r"(clip_decoder|mae_decoder|final_clip_decoder)\..*|clip_pos_embed|mae_pos_embed", "distillation only"),)
DROP_LLAMA = (COMPUTED, (r"(?!transformer\.|text_projection$).*", "not the text tower"))
DROP_MOBILECLIP = ((r"(?!text_encoder\.).*", "not the text tower"),)
DROP_CLIP = (COMPUTED,)


@dataclass
class Converted:
    """Entries under our names, and where each entry of the source went: every one is in `kept` or in `dropped`."""

    state: dict[str, Tensor] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)  # source name -> our name (a LoRA half: the matrix it went into)
    dropped: dict[str, str] = field(default_factory=dict)  # source name -> why


def canonical_s2_name(name: str) -> str:
    """Upstream drops the level `bert.` where it builds no masked-language head; ours always has it.

    >>> canonical_s2_name("text_encoder.encoder.layer.0.output.dense.bias")
    'text_encoder.bert.encoder.layer.0.output.dense.bias'
    """
    return re.sub(r"^text_encoder\.(?=embeddings\.|encoder\.)", "text_encoder.bert.", name)


def s2_state(state: Mapping[str, Tensor], shape: VisionShape, side: int | None = None) -> Converted:
    """An s2 file for S2Model: both spellings of the text tower, audio left out, tables resized to `shape`.

    `side` is the file's number of patches along an edge, where it is not `shape`'s.
    """
    return _with_tables_fitted(_sort(state, DROP_S2, canonical_s2_name), shape, side)


def clip_vision_state(state: Mapping[str, Tensor], old: VisionShape, new: VisionShape) -> Converted:
    """The vision tower of an s2 state for ClipModel, the position table resized from `old` to `new`.

    Raises:
        UserError: if the towers differ in a number that weights depend on.
    """
    same = (
        "width",
        "depth",
        "num_heads",
        "mlp_hidden",
        "pool_heads",
        "pool_width",
        "tubelet_size",
        "patch_size",
        "gelu",
    )
    for name in same:
        a, b = getattr(old, name), getattr(new, name)
        if a != b:
            raise UserError(f"clip cannot go on from this s2: {name} is {a} there and {b} here")
    found = _sort(state, DROP_S2_FOR_CLIP)
    table = "vision_encoder.pos_embed"
    if table in found.state:
        found.state[table] = position_embedding.resize(found.state[table], old.grid, new.grid)
    return found


def clip_tower_state(
    state: Mapping[str, Tensor], shape: VisionShape | None = None, side: int | None = None
) -> Converted:
    """A distilled vision tower's own file (unprefixed names, 8 frames) for ClipModel.

    With `shape`, its position table is resized as in `s2_state`; upstream takes it as it is.
    """
    return _with_tables_fitted(_sort(state, DROP_TOWER, "vision_encoder.{}".format), shape, side)


def clip_state(state: Mapping[str, Tensor], shape: VisionShape | None = None, side: int | None = None) -> Converted:
    """A whole clip model or a delta under ClipModel's names: LoRA merged, `shape` and `side` as in `s2_state`."""
    return _with_tables_fitted(_with_lora_merged(_sort(state, DROP_CLIP)), shape, side)


def clip_text_state(state: Mapping[str, Tensor], kind: str) -> Converted:
    """A text tower's own file for ClipModel: "llama" (InternVL's file, LoRA merged) or "mobileclip" (Apple's)."""
    if kind == "mobileclip":
        return _sort(state, DROP_MOBILECLIP)
    return _with_lora_merged(_sort(state, DROP_LLAMA, "text_encoder.{}".format))


def assemble_clip(*parts: Converted | Mapping[str, Tensor]) -> Converted:
    """One clip state out of vision, text, extra and delta files, in this order; later ones override.

    Raises:
        UserError: if all that was given is a delta, the few tensors that clip's training moved.
    """
    found = Converted()
    for part in parts:
        part = part if isinstance(part, Converted) else clip_state(part)
        found.state.update(part.state)
        found.kept.update(part.kept)
        found.dropped.update(part.dropped)
    if not any(".blocks." in name for name in found.state):
        raise UserError(
            f"these {len(found.state)} entries are a delta, not a whole clip model: the published clip files hold only "
            "what clip's training moved; give the s2 (1B, 6B) or tower (S14, B14, L14) file and the text file as well"
        )
    return found


def frames_of(table: Tensor, side: int) -> int:
    """Time steps of a table [1, 1+T*side*side, C].

    Raises:
        UserError: if it is no such table.
    """
    num_frames, rest = divmod(table.shape[1] - 1, side * side) if table.ndim == 3 else (0, 1)
    if rest or num_frames < 1:
        raise UserError(
            f"a position table of shape {list(table.shape)} is no whole number of {side}x{side} frames; give the file "
            "of this size as published"
        )
    return num_frames


def fit_table(table: Tensor, shape: VisionShape, side: int | None = None) -> Tensor:
    """A table [1, 1+T*side*side, C] of any number of time steps, resized to `shape`'s grid.

    Args:
        table: class slot first.
        shape: the tower it is for.
        side: patches along an edge of the table's frames; None: as many as `shape` has.

    Raises:
        UserError: if the slots are no whole number of frames.
    """
    side = side or shape.grid[1]
    return position_embedding.resize(table, (frames_of(table, side), side, side), shape.grid)


def merge_lora(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state without LoRA branches: W + 2 * B @ A in float32, rounded once to W's dtype; the rest untouched.

    Both spellings are read: `q_proj.weight` (peft 0.4) and `q_proj.base_layer.weight` (newer peft).

    Raises:
        UserError: if a branch lacks its other half or its matrix.
    """
    plain = {name.replace(".base_layer.", "."): value for name, value in state.items() if not is_lora(name)}
    branches: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if found := _LORA.fullmatch(name):
            branches.setdefault(found[1], {})[found[2]] = value
    for name, branch in branches.items():
        weight = plain.get(f"{name}.weight")
        if weight is None or set(branch) != {"A", "B"}:
            raise UserError(f"the LoRA branch of {name} is not whole: it needs lora_A, lora_B and {name}.weight")
        update = LORA_SCALE * (branch["B"].float() @ branch["A"].float())
        plain[f"{name}.weight"] = (weight.float() + update).to(weight.dtype)
    return plain


def is_lora(name: str) -> bool:
    """Whether a state entry is half of a LoRA branch, to be merged rather than loaded."""
    return _LORA.fullmatch(name) is not None


def _sort(state: Mapping[str, Tensor], drop: tuple[tuple[str, str], ...], rename: Any = str) -> Converted:
    found = Converted()
    for name, value in state.items():
        reason = next((why for pattern, why in drop if re.fullmatch(pattern, name)), None)
        if reason is None:
            found.kept[name] = rename(name)
            found.state[found.kept[name]] = value
        else:
            found.dropped[name] = reason
    return found


def _with_lora_merged(found: Converted) -> Converted:
    found.state = merge_lora(found.state)
    for source, name in found.kept.items():
        whole = _LORA.fullmatch(name)
        found.kept[source] = f"{whole[1]}.weight" if whole else name.replace(".base_layer.", ".")
    return found


def _with_tables_fitted(found: Converted, shape: VisionShape | None, side: int | None) -> Converted:
    if shape is not None:
        image = replace(shape, num_frames=shape.tubelet_size)
        for name in TABLES:
            if name in found.state:
                wanted = image if name in IMAGE_TABLES else shape
                try:
                    found.state[name] = fit_table(found.state[name], wanted, side)
                except UserError as error:
                    raise UserError(f"{name}: {error}") from None
    return found
