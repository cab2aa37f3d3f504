"""The two model configurations (transformers' PretrainedConfig) and the size files they are filled from."""

from typing import Any

from transformers import PretrainedConfig

from ivcore.config.values import SIZES, size_values
from ivcore.errors import UserError
from ivcore.models.dimensions import (
    CLIP_TEXT,
    BertShape,
    ClipTextShape,
    VisionShape,
    read_shape,
    read_text_shape,
)


class S2Config(PretrainedConfig):
    """s2: vision tower, BERT with a fusion tail, contrast and matching heads."""

    model_type = "ivflow_s2"

    size: str = "tiny"
    seed: int = 0  # of the initial weights
    init_std: float = 0.02  # of the initial weights of both towers; upstream's at every size
    vision: dict[str, Any] | None = None  # the fields of VisionShape
    text: dict[str, Any] | None = None  # the fields of BertShape
    embed_dim: int = 128  # width both sides are projected to
    fusion_width: int | None = None  # 6B: video tokens are projected to this before fusion; None: read raw
    temp: float = 0.07
    temp_min: float = 0.001
    temp_max: float = 0.5
    tie_word_embeddings: bool = True  # the masked-language head writes with the word embeddings
    tokenizer_sha256: str | None = None  # of the tokenizer it was trained with; another is refused at load

    def vision_shape(self) -> VisionShape:
        """The vision tower's numbers, checked."""
        return read_shape(VisionShape, self.vision or {})

    def text_shape(self) -> BertShape:
        """The text tower's numbers, checked."""
        return read_shape(BertShape, self.text or {})


class ClipConfig(PretrainedConfig):
    """clip: vision tower, a causal text tower, nothing between them but a temperature."""

    model_type = "ivflow_clip"

    size: str = "tiny"
    seed: int = 0  # of the initial weights
    init_std: float = 0.02  # of the initial weights of both towers; upstream's at every size
    vision: dict[str, Any] | None = None  # the fields of VisionShape
    text: dict[str, Any] | None = None  # the fields of a ClipTextShape, by its "kind"
    align_dim: int | None = None  # S/B/L14: pooled width -> this; None: the pooled vector is the embedding
    temp: float = 0.01
    temp_min: float = 0.01
    temp_max: float | None = None
    tie_word_embeddings: bool = False
    tokenizer_sha256: str | None = None  # of the tokenizer it was trained with; another is refused at load

    def vision_shape(self) -> VisionShape:
        """The vision tower's numbers, checked."""
        return read_shape(VisionShape, self.vision or {})

    def text_shape(self) -> ClipTextShape:
        """The text tower's numbers, checked."""
        return read_text_shape(self.text or {})

    @property
    def embed_dim(self) -> int:
        """Width of the vectors that are compared."""
        return self.align_dim or self.vision_shape().pool_width


def size_names() -> list[str]:
    """Sorted names of the size files."""
    return sorted(file.stem for file in SIZES.glob("*.toml"))


def load_size(name: str) -> dict[str, Any]:
    """The contents of sizes/NAME.toml: tables `vision` (common), `s2` and `clip` (each with a table `text`).

    Raises:
        UserError: naming the known sizes.
    """
    if name not in size_names():
        raise UserError(f"no model size {name!r}; known: {', '.join(size_names())}")
    return size_values(name)


def s2_config(size: str, vocab_size: int | None = None, seed: int = 0, **overrides: Any) -> S2Config:
    """The configuration of the s2 model of this size; see `fill` for the overrides."""
    return S2Config(size=size, seed=seed, **fill(size, "s2", vocab_size, overrides))


def clip_config(size: str, vocab_size: int | None = None, seed: int = 0, **overrides: Any) -> ClipConfig:
    """The configuration of the clip model of this size; see `fill` for the overrides."""
    return ClipConfig(size=size, seed=seed, **fill(size, "clip", vocab_size, overrides))


def with_bert(config: ClipConfig) -> ClipConfig:
    """The same with s2's text layers for its text tower, which reads as many tokens of as large a vocabulary."""
    s2: dict[str, Any] = load_size(config.size)["s2"]["text"]
    same = ("hidden_size", "intermediate_size", "num_attention_heads", "dropout")
    own = ("vocab_size", "max_position_embeddings")
    text = {"kind": "bert", "num_hidden_layers": s2["fusion_layer"]}
    text |= {name: s2[name] for name in same if name in s2} | {name: (config.text or {})[name] for name in own}
    return ClipConfig.from_dict({**config.to_dict(), "text": text})


def fill(size: str, part: str, vocab_size: int | None, overrides: dict[str, Any]) -> dict[str, Any]:
    """The fields of one part ("s2" or "clip") of a size: the file, then the vocabulary, then the overrides.

    An override is a field of the part, of its vision tower or of its text tower, by its bare name
    (`num_frames=4, dropout=0.1, temp=0.05`); no name occurs twice among them.

    Raises:
        UserError: for a size without a vocabulary of its own when none is given, or a name that is not a field.
    """
    numbers = load_size(size)
    fields = dict(numbers[part])
    vision: dict[str, Any] = {**numbers["vision"], **fields.pop("vision", {})}
    text: dict[str, Any] = dict(fields.pop("text"))
    if vocab_size is not None:
        text["vocab_size"] = vocab_size
    if "vocab_size" not in text:
        raise UserError(f"size {size} has no vocabulary of its own: give vocab_size (the tokenizer's)")
    text_kind: Any = BertShape if part == "s2" else CLIP_TEXT[text["kind"]]
    config_kind: Any = S2Config if part == "s2" else ClipConfig
    for name, value in overrides.items():
        if name in VisionShape.__dataclass_fields__:
            vision[name] = value
        elif name in text_kind.__dataclass_fields__:
            text[name] = value
        elif name in config_kind.__annotations__ and name not in ("vision", "text", "size", "seed", "tokenizer_sha256"):
            fields[name] = value
        else:
            raise UserError(f"{part} of size {size} has no field {name!r}")
    return {**fields, "vision": vision, "text": text}
