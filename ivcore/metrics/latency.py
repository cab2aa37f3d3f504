"""What one query costs a server: milliseconds, one query at a time, and arithmetic.

Shapes: T texts, V videos, L text tokens, H hidden, N video tokens, C vision width, E embedding, k candidates.

Text to video: the caption comes as a string, video embeddings (and for matching the stored tokens) are at hand.
Video to text: the video comes as stored tokens, its way through the trunk is not counted; text embeddings (and for
matching text states) are at hand. Matching projects keys and values from the tokens of its k candidates, as a server
that stores tokens must; `cached` is the same with them kept, which costs far more memory.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ivcore.metrics.embed import Encoder, Texts, TokensOf
from ivcore.models import S2Model

WARM_UP = 3  # queries run first and not timed
COUNTED = 4  # queries whose arithmetic is counted; the mean is given
MAX_CACHE_BYTES = 256_000_000  # keys and values beyond this are not kept, and `cached` is not timed


@dataclass
class Server:
    """One gallery and its texts, ready to be asked."""

    encoder: Encoder
    captions: Sequence[str]
    texts: Texts
    videos: Tensor  # [V, E]
    tokens_of: TokensOf
    k: int
    text_weight: Tensor  # [T], 1 / sum of exp over videos: what dual softmax divides by
    video_weight: Tensor  # [V]
    _cache: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def ask(self, direction: str, head: str, number: int) -> Tensor:
        """Answer text (t2v) or video (v2t) `number`: the best k candidates, best first, int [k]."""
        return self._ask_text(head, number) if direction == "t2v" else self._ask_video(head, number)

    def _ask_text(self, head: str, number: int) -> Tensor:
        encoder = self.encoder
        ids, mask = encoder.tokenizer.encode([self.captions[number]], encoder.text_len)
        states, embedding = encoder.text(ids, mask)
        top = self._best(embedding.cpu(), self.videos, self.video_weight, head)
        if not head.startswith("match"):
            return top
        assert isinstance(encoder.model, S2Model) and states is not None
        with encoder.arithmetic():
            if head == "match_cached":
                kv = [(k[top], v[top]) for k, v in self._cache]
            else:
                kv = encoder.model.video_kv(self.tokens_of(top.numpy()).to(encoder.device))
            many = states.expand(len(top), -1, -1), mask.to(encoder.device).expand(len(top), -1)
            logits = encoder.model.match(*many, kv, torch.arange(len(top), device=encoder.device))[:, 1]
        return top[logits.float().cpu().argsort(descending=True)]

    def _ask_video(self, head: str, number: int) -> Tensor:
        encoder = self.encoder
        tokens = self.tokens_of(np.array([number])).to(encoder.device)  # [1, N, C]
        top = self._best(encoder.video(tokens).cpu(), self.texts.embedding, self.text_weight, head)
        if not head.startswith("match"):
            return top
        assert isinstance(encoder.model, S2Model) and self.texts.states is not None and self.texts.mask is not None
        with encoder.arithmetic():
            kv = encoder.model.video_kv(tokens)
            mask = self.texts.mask[top]
            length = int(mask.sum(dim=1).max())
            some = self.texts.states[top, :length].to(encoder.device), mask[:, :length].to(encoder.device)
            logits = encoder.model.match(*some, kv)[:, 1]
        return top[logits.float().cpu().argsort(descending=True)]

    def _best(self, query: Tensor, gallery: Tensor, weight: Tensor, head: str) -> Tensor:
        score = (query @ gallery.T)[0]  # [V] or [T]
        if head == "dsl":
            score = score * score.exp() * weight
        return score.topk(min(self.k, len(score))).indices

    def keep_kv(self) -> bool:
        """Project and keep keys and values of every video; False, and nothing kept, when they would not fit."""
        assert isinstance(self.encoder.model, S2Model)
        with self.encoder.arithmetic():
            one = self.encoder.model.video_kv(self.tokens_of(np.array([0])).to(self.encoder.device))
            if sum(x.nbytes for pair in one for x in pair) * len(self.videos) > MAX_CACHE_BYTES:
                return False
            every = self.tokens_of(np.arange(len(self.videos))).to(self.encoder.device)
            self._cache = self.encoder.model.video_kv(every)
        return True


def milliseconds(ask: Callable[[int], object], numbers: Sequence[int], device: torch.device) -> dict[str, float]:
    """p50 and p95 of the wall-clock time of a query, warm, one at a time."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    for number in numbers[:WARM_UP]:
        ask(number)
    wait()
    took = []
    for number in numbers:
        start = time.perf_counter()
        ask(number)
        wait()
        took.append(1e3 * (time.perf_counter() - start))
    p50, p95 = np.percentile(took, [50, 95])
    return {"p50": round(float(p50), 3), "p95": round(float(p95), 3)}


def gflop(ask: Callable[[int], object], numbers: Sequence[int]) -> float:
    """Mean arithmetic of a query in 10^9 operations (a multiply and an add are two).

    Attention runs in its plain form while it is counted: the counter does not know the fused kernel of the CPU.
    """
    numbers = list(numbers)[:COUNTED]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        for number in numbers:
            ask(number)
    return round(counter.get_total_flops() / len(numbers) / 1e9, 6)
