"""Matching for a server: one text against some of the videos of an index, whose tokens are stored.

Shapes: L text tokens, H hidden, k candidates, N video tokens, C what the fusion reads, A heads, D = H / A.

Keys and values of every video would be many times the tokens they come from, and projecting them for a single text
costs most of the query. So the videos that are asked for most keep theirs within a byte budget, and all others are
read in the folded form, without any. Both give the logits of `S2Model.match`. On a GPU nothing is kept: for one text
the folded form reads hardly more bytes than kept keys and values would, and all videos go in one set of calls.
"""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ivcore.models import fusion_packed
from ivcore.models.s2 import S2Model
from ivcore.retrieval.rerank_blocks import BlockRerank


class Matcher:
    """Matching logits of one text at a time; call `keep` between queries to let the hot set follow what is asked for.

    Args:
        model: in eval mode.
        tokens_of: video numbers [n] -> n times [N, C]; views save a copy.
        projected: the tokens are stored as the fusion layers read them (s2-6B: a quarter of the size), and not as the
            trunk gives them.
        max_bytes: of the keys and values kept.
        dtype: of the arithmetic and of what is kept; None: the model's.
    """

    def __init__(
        self,
        model: S2Model,
        tokens_of: Callable[[np.ndarray], Tensor | Sequence[Tensor]],
        max_bytes: int,
        dtype: torch.dtype | None = None,
        projected: bool = False,
    ) -> None:
        self.model, self.tokens_of, self.max_bytes, self.projected = model, tokens_of, max_bytes, projected
        self.dtype = dtype or model.dtype
        self.layers = fusion_packed.fusion_layers(model, self.dtype)
        self.blocks = None if model.device.type == "cpu" else BlockRerank(model, self.dtype, projected)
        self.hot: dict[int, list[Tensor]] = {}  # video -> keys and values [2H, N] of each layer
        self.bytes = 0
        self.asked: Counter[int] = Counter()
        self.hits = self.misses = 0

    @torch.inference_mode()
    def __call__(self, states: Tensor, videos: np.ndarray) -> Tensor:
        """Raw class-1 logits of one text (unpadded states [L, H]) with each video [k]: float32 [k], on the CPU."""
        if self.blocks is not None:
            pairs = np.stack([np.zeros_like(videos), videos], axis=1)
            return self.blocks(states[None], np.array([len(states)]), self._stacked, pairs)
        cold = [v for v in videos.tolist() if v not in self.hot]
        order = cold + [v for v in videos.tolist() if v in self.hot]
        self.asked.update(order)
        self.misses, self.hits = self.misses + len(cold), self.hits + len(order) - len(cold)
        tokens = torch.stack(self._tokens(cold)) if cold else None  # [videos, N, C]
        count, length = len(order), len(states)
        x = fusion_packed.read_text(self.layers[0], states.to(self.model.device).float(), [(1, length)], cls_only=False)
        x = x.repeat(count, 1)
        for number, layer in enumerate(self.layers):
            last = number == len(self.layers) - 1
            if number:
                x = fusion_packed.read_text(layer, x, [(count, length)], cls_only=last)
            elif last:
                x = x[::length]
            rows = len(x) // count
            q = layer.query(x).unflatten(-1, (layer.num_heads, -1)).transpose(0, 1).contiguous()  # [A, k * rows, D]
            read = []
            if tokens is not None:
                read.append(fusion_packed.read_tokens(layer, q[:, : len(cold) * rows].contiguous(), tokens))
            if kept := [self.hot[video][number] for video in order[len(cold) :]]:
                read.append(fusion_packed.read_videos(q[:, len(cold) * rows :], kept))
            x = fusion_packed.feed_forward(layer, layer.cross_out(torch.cat(read), x))
        logits = self.model.itm_head(x.to(self.model.dtype))[:, 1].float().cpu()
        place_of = {video: place for place, video in enumerate(order)}
        found: Tensor = logits[[place_of[v] for v in videos.tolist()]]
        return found

    @torch.inference_mode()
    def keep(self, videos: Sequence[int] | np.ndarray) -> int:
        """Project and keep the keys and values of those of `videos` that are asked for more than what they displace.

        Returns:
            How many were taken in. A query should not wait for this; each costs a projection.
        """
        if self.blocks is not None:
            return 0
        taken = 0
        for video in sorted({int(v) for v in videos} - self.hot.keys(), key=lambda v: (-self.asked[v], v)):
            least = min(self.hot, key=lambda v: (self.asked[v], v), default=None)
            one = sum(kv.nbytes for kv in self.hot[least]) if least is not None else 0
            is_full = self.bytes + max(one, 1) > self.max_bytes
            if is_full and (least is None or self.asked[video] <= self.asked[least]):
                break
            (tokens,) = self._tokens([video])
            made = [fusion_packed.keys_values(layer, tokens) for layer in self.layers]
            size = sum(kv.nbytes for kv in made)
            while self.hot and self.bytes + size > self.max_bytes:
                gone = self.hot.pop(min(self.hot, key=lambda v: (self.asked[v], v)))
                self.bytes -= sum(kv.nbytes for kv in gone)
            if size <= self.max_bytes:
                self.hot[video] = made
                self.bytes += size
                taken += 1
        return taken

    def _stacked(self, videos: np.ndarray) -> Tensor:
        """The stored tokens of these videos, [n, N, C]."""
        found = self.tokens_of(videos)
        return found if isinstance(found, Tensor) else torch.stack(list(found))

    def _tokens(self, videos: list[int]) -> list[Tensor]:
        """What the fusion layers read of these videos: n times [N, C], contiguous."""
        found = [t.to(self.model.device) for t in self.tokens_of(np.array(videos, dtype=int))] if videos else []
        if self.model.config.fusion_width and not self.projected:
            found = [self.model.fusion_tokens(t.to(self.model.dtype)) for t in found]
        return [t.to(self.dtype) for t in found]
