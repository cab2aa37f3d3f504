"""What s2 and clip share: strict loading, weights that start from a seed, frozen parts that stay in eval mode."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.initialization import no_init_weights
from transformers.models.bert.modeling_bert import BertEmbeddings

from ivcore.errors import UserError
from ivcore.models.init_weights import initialise

# Buffers that old files carry and that are computed here: transformers 4.28 saved them.
IGNORED_KEYS = ("rotary_emb.inv_freq", "embeddings.position_ids")
TIED = {
    "text_encoder.cls.predictions.decoder.weight": "text_encoder.bert.embeddings.word_embeddings.weight",
    "text_encoder.cls.predictions.decoder.bias": "text_encoder.cls.predictions.bias",
}


class VideoTextModel(PreTrainedModel):
    """Base of S2Model and ClipModel. `train()` leaves what `freeze.apply_policy` froze in eval mode."""

    base_model_prefix = ""
    _supports_sdpa = True
    temp: nn.Parameter

    def no_weight_decay(self) -> list[str]:
        """Sorted names of the parameters that take no weight decay beyond biases and vectors.

        Position tables, class token and temperature; in clip the whole text tower as well (upstream's choice).
        """
        tables = [n for n, _ in self.named_parameters() if n.startswith("vision_encoder.") and "pos_embed" in n]
        text = [n for n, _ in self.named_parameters() if n.startswith("text_encoder.")]
        is_clip = self.config.model_type == "ivflow_clip"
        return sorted(["temp", "vision_encoder.cls_token", *tables, *(text if is_clip else [])])

    @torch.no_grad()
    def clamp_temp(self) -> None:
        """Bring the temperature back into [temp_min, temp_max]; to be called before every training step."""
        self.temp.clamp_(self.config.temp_min, self.config.temp_max)

    def train(self, mode: bool = True) -> Self:
        """Training or eval mode; frozen parts stay in eval mode (no dropout, no stochastic depth)."""
        super().train(mode)
        for module in self.modules():
            if getattr(module, "is_frozen", False):
                module.training = False
        return self

    def eval(self) -> Self:
        """Eval mode."""
        return self.train(False)

    def on(self, device: torch.device) -> Self:
        """The model itself, moved to a device; transformers' own `to` hides its types."""
        nn.Module.to(self, device)
        return self

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """transformers' from_pretrained, but strict.

        Raises:
            UserError: in one line, when a weight is missing, unexpected or of another shape.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs["ignore_mismatched_sizes"] = True  # so that they are reported below, with the rest, in one line
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = loaded
        _refuse(info["missing_keys"], info["unexpected_keys"], [m[0] for m in info["mismatched_keys"]])
        return (model, info) if wants_info else model

    def _init_weights(self, module: nn.Module) -> None:
        # transformers calls this for what a file did not hold. Weights: there are none, loading is strict; a fresh
        # model is filled by `start`. Buffers that are not saved come from the meta device empty and are made here.
        if isinstance(module, BertEmbeddings):
            module.position_ids.copy_(torch.arange(module.position_ids.shape[-1])[None])
            module.token_type_ids.zero_()

    def _start(self) -> None:
        """Last line of a constructor: tie, register with transformers, fill a fresh model from its seed."""
        with no_init_weights():  # transformers would fill the towers from the global generator, only to be overwritten
            self.post_init()  # type: ignore[no-untyped-call]  # transformers gives it no types
        self.tie_weights(recompute_mapping=False)
        initialise(self, self.config.seed, self.config.vision_shape(), self.config.init_std)


@contextmanager
def unfilled() -> Iterator[None]:
    """Modules built inside hold whatever memory held: no time and no global random numbers spent on weights."""
    with no_init_weights():
        yield


def load_strict(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    """Copy `state` into `model`, every entry or none; returns the names that were ignored (`IGNORED_KEYS`).

    Of a tied pair either name will do; when both are given they must be equal.

    Raises:
        UserError: in one line, naming entries that are missing, unexpected, of another shape, or tied but different.
    """
    ignored = sorted(name for name in state if name.endswith(IGNORED_KEYS))
    given = {name: value for name, value in state.items() if name not in ignored}
    own = model.state_dict(keep_vars=False)
    for copy, source in TIED.items():
        if copy not in own:
            continue
        if copy in given and source in given and not torch.equal(given[copy], given[source]):
            raise UserError(f"{copy} and {source} are one tensor here, but differ in these weights")
        if copy in given or source in given:
            given[copy] = given[source] = given.get(source, given.get(copy))  # type: ignore[assignment]
    wrong_shape = [name for name in given if name in own and given[name].shape != own[name].shape]
    _refuse(set(own) - set(given), set(given) - set(own), wrong_shape)
    model.load_state_dict(given, strict=True)
    return ignored


def _refuse(missing: Any, unexpected: Any, wrong_shape: Any) -> None:
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": wrong_shape}
    parts = [f"{len(names)} {kind} ({_short(sorted(names))})" for kind, names in kinds.items() if names]
    if parts:
        raise UserError(f"these weights do not fit the model: {'; '.join(parts)}")


def _short(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
