"""The numbers that make a tower, as typed records: what a size file states and what config.json repeats."""

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from ivcore.errors import UserError


@dataclass(frozen=True, kw_only=True)
class VisionShape:
    """A vision tower. The s2 and the clip form of one size differ in frames, tables, decoders and layer scale only."""

    image_size: int  # pixels, square
    patch_size: int  # pixels, square
    num_frames: int  # frames the position table is made for
    width: int
    depth: int
    num_heads: int
    mlp_hidden: int
    pool_heads: int
    pool_width: int  # upstream: clip_embed_dim
    tubelet_size: int = 1  # frames in one patch
    gelu: Literal["tanh", "erf"] = "tanh"  # the published weights were trained with flash-attn's tanh form
    layer_scale_init: float = 1e-5
    layer_scale_fp32: bool = True
    drop_path: float = 0.0  # rate of the last block; grows linearly from 0
    image_table: bool = False  # a position table of its own for single frames (upstream: sep_image_video_pos_embed)
    split_table: bool = False  # tables for space and time apart (upstream: sep_pos_embed; no published size)
    num_decoders: int = 0  # alignment decoders on the last blocks; 0 also leaves out the final one
    decoder_interval: int = 1  # decoders sit on the last block and every so many before it
    decoder_width: int = 3200
    final_decoder_width: int = 768
    checkpoint_blocks: int = 0  # the first so many blocks trade time for memory in training

    def __post_init__(self) -> None:
        """Refuse numbers that do not fit each other."""
        for whole, part in (
            ("image_size", "patch_size"),
            ("num_frames", "tubelet_size"),
            ("width", "num_heads"),
            ("width", "pool_heads"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise UserError(f"{whole}={getattr(self, whole)} is not a multiple of {part}={getattr(self, part)}")
        if (self.num_decoders - 1) * self.decoder_interval >= self.depth:
            raise UserError(f"num_decoders={self.num_decoders} is more than depth={self.depth} has room for")

    @property
    def grid(self) -> tuple[int, int, int]:
        """(time steps, rows, columns) of the patches of a full-length video."""
        side = self.image_size // self.patch_size
        return self.num_frames // self.tubelet_size, side, side

    @property
    def num_patches(self) -> int:
        """Patches of a full-length video; the class token comes on top."""
        return self.grid[0] * self.grid[1] * self.grid[2]


@dataclass(frozen=True, kw_only=True)
class TextShape:
    """What every text tower has."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    max_position_embeddings: int


@dataclass(frozen=True, kw_only=True)
class PlainBertShape(TextShape):
    """BERT that reads text alone: s2's text layers, as a text tower of clip."""

    kind: Literal["bert"] = "bert"
    type_vocab_size: int = 2
    dropout: float = 0.1  # hidden states and attention weights alike
    layer_norm_eps: float = 1e-12


@dataclass(frozen=True, kw_only=True)
class BertShape(PlainBertShape):
    """The text tower of s2: BERT whose layers from `fusion_layer` on also read the video."""

    fusion_layer: int
    checkpoint_layers: bool = False  # every layer trades time for memory in training


@dataclass(frozen=True, kw_only=True)
class LlamaShape(TextShape):
    """A LLaMA text tower with a bare projection behind it."""

    kind: Literal["llama"] = "llama"
    rms_norm_eps: float = 1e-6
    checkpoint_layers: bool = False


@dataclass(frozen=True, kw_only=True)
class MobileClipShape(TextShape):
    """MobileCLIP's text tower."""

    kind: Literal["mobileclip"] = "mobileclip"
    causal: bool = True


CLIP_TEXT: dict[str, Any] = {"llama": LlamaShape, "mobileclip": MobileClipShape, "bert": PlainBertShape}
ClipTextShape = LlamaShape | MobileClipShape | PlainBertShape
Shape = TypeVar("Shape", VisionShape, PlainBertShape, BertShape, LlamaShape, MobileClipShape)


def read_shape(kind: type[Shape], numbers: dict[str, Any]) -> Shape:
    """The record of `kind` with these numbers.

    Raises:
        UserError: naming the numbers that are unknown or missing.
    """
    known = {field.name for field in fields(kind)}
    if unknown := sorted(set(numbers) - known):
        raise UserError(f"{kind.__name__} has no {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    try:
        return kind(**numbers)
    except TypeError as error:  # dataclasses name the missing ones in their message
        raise UserError(f"{kind.__name__}: {error}") from None


def read_text_shape(numbers: dict[str, Any]) -> ClipTextShape:
    """The record of clip's text tower, chosen by its `kind`."""
    if numbers.get("kind") not in CLIP_TEXT:
        raise UserError(f"clip's text tower is of kind {' or '.join(CLIP_TEXT)}, not {numbers.get('kind')!r}")
    return read_shape(CLIP_TEXT[numbers["kind"]], numbers)
