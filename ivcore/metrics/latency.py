"""What a query costs a server: milliseconds alone and in batches, warm and cold, by stage, and arithmetic.

Shapes: Q queries of a batch, T texts, V videos, L text tokens, H hidden, N video tokens, C vision width, E embedding,
k candidates.

Text to video: the caption comes as a string, video embeddings (and for matching the stored tokens) are at hand.
Video to text: the video comes as stored tokens, its way through the trunk is not counted; text embeddings (and for
matching text states) are at hand. Matching projects keys and values from the tokens of its k candidates, as a server
that stores tokens must; `cached` is the same with them kept, which costs far more memory.

Stages: encode (string or tokens to an embedding), similarity (the k best of the gallery), rerank (matching). Cold:
the processor's caches were filled with something else before the query, as on a machine that does other things.
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
from ivcore.metrics.rerank import rerank, unite
from ivcore.models import S2Model

WARM_UP = 3  # queries run first and not timed
COUNTED = 4  # queries whose arithmetic is counted; the mean is given
BATCH = 32  # queries of a batch
BATCHES = 3  # batches timed, after one that is not
COLD_SHARE = 6  # one in so many of the timed queries is asked again with cold caches
CACHE_FILL_BYTES = 64 << 20  # what is written over before a cold query
MAX_CACHE_BYTES = 256_000_000  # keys and values beyond this are not kept, and `cached` is not timed


@dataclass
class Server:
    """One gallery and its texts, ready to be asked. `took`: seconds of each stage of the last answer."""

    encoder: Encoder
    captions: Sequence[str]
    texts: Texts
    videos: Tensor  # [V, E]
    tokens_of: TokensOf
    k: int
    text_weight: Tensor  # [T], 1 / sum of exp over videos: what dual softmax divides by
    video_weight: Tensor  # [V]
    took: dict[str, float] = field(default_factory=dict)
    _cache: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def ask(self, direction: str, head: str, numbers: Sequence[int], k: int | None = None) -> Tensor:
        """Answer texts (t2v) or videos (v2t) `numbers`: the best k candidates of each, best first, int [Q, k]."""
        start = self._lap("", time.perf_counter())
        texts, tokens, query = self._encode(direction, numbers)
        start = self._lap("encode", start)
        sides = (self.videos, self.video_weight) if direction == "t2v" else (self.texts.embedding, self.text_weight)
        top = self._best(query, *sides, head, k or self.k)
        start = self._lap("similarity", start)
        if head.startswith("match"):
            one = self._match_text if direction == "t2v" else self._match_video
            logits = (
                one(texts, tokens, top[0], head)[None]
                if len(numbers) == 1
                else self._match_many(direction, texts, np.asarray(numbers), top)
            )
            top = top.gather(1, logits.argsort(dim=1, descending=True))
            self._lap("rerank", start)
        return top

    def _lap(self, stage: str, start: float) -> float:
        """Note how long a stage took since `start`; the GPU is waited for."""
        if self.encoder.device.type == "cuda":
            torch.cuda.synchronize(self.encoder.device)
        now = time.perf_counter()
        self.took = {**self.took, stage: now - start} if stage else {}
        return now

    def _encode(self, direction: str, numbers: Sequence[int]) -> tuple[Texts, Tensor | None, Tensor]:
        """(texts of the query, stored tokens [Q, N, C] of the query, embeddings [Q, E]); what is not asked is empty."""
        encoder = self.encoder
        if direction == "v2t":
            tokens = self.tokens_of(np.asarray(numbers)).to(encoder.device)
            return self.texts, tokens, encoder.video(tokens).cpu()
        ids, mask = encoder.tokenizer.encode([self.captions[n] for n in numbers], encoder.text_len)
        length = int(mask.sum(dim=1).max())  # of one query: its own
        states, embedding = encoder.text(ids[:, :length], mask[:, :length])
        return Texts(embedding, states, mask[:, :length]), None, embedding.cpu()

    def _match_text(self, texts: Texts, tokens: Tensor | None, top: Tensor, head: str) -> Tensor:
        """Logits [k] of one text against its candidates."""
        encoder = self.encoder
        assert isinstance(encoder.model, S2Model) and texts.states is not None and texts.mask is not None
        with encoder.arithmetic():
            if head == "match_cached":
                kv = [(k[top], v[top]) for k, v in self._cache]
            else:
                kv = encoder.model.video_kv(self.tokens_of(top.numpy()).to(encoder.device))
            many = (x.to(encoder.device).expand(len(top), *x.shape[1:]) for x in (texts.states, texts.mask))
            logits = encoder.model.match(*many, kv, torch.arange(len(top), device=encoder.device))
        return logits[:, 1].float().cpu()

    def _match_video(self, texts: Texts, tokens: Tensor | None, top: Tensor, head: str) -> Tensor:
        """Logits [k] of one video against its candidates."""
        encoder = self.encoder
        assert isinstance(encoder.model, S2Model) and texts.states is not None and texts.mask is not None
        with encoder.arithmetic():
            kv = encoder.model.video_kv(tokens)
            mask = texts.mask[top]
            length = int(mask.sum(dim=1).max())
            some = texts.states[top, :length].to(encoder.device), mask[:, :length].to(encoder.device)
            return encoder.model.match(*some, kv)[:, 1].float().cpu()

    def _match_many(self, direction: str, texts: Texts, numbers: np.ndarray, top: Tensor) -> Tensor:
        """Logits [Q, k] of a batch of queries: each video's keys and values are projected once for all of them."""
        assert isinstance(self.encoder.model, S2Model) and texts.states is not None and texts.mask is not None
        found = top.numpy()
        if direction == "t2v":
            pairs = unite(found, np.zeros((0, found.shape[1]), np.int64))
            code = found * len(numbers) + np.arange(len(numbers))[:, None]
            width = len(numbers)
        else:
            pairs = unite(np.zeros((0, found.shape[1]), np.int64), found, numbers)
            code = numbers[:, None] * len(self.captions) + found
            width = len(self.captions)
        with self.encoder.arithmetic():
            logits = rerank(self.encoder.model, texts.states, texts.mask, self.tokens_of, pairs)
        known = pairs[:, 1] * width + pairs[:, 0]  # sorted: by video, then text
        return logits[torch.from_numpy(np.searchsorted(known, code))]

    def _best(self, query: Tensor, gallery: Tensor, weight: Tensor, head: str, k: int) -> Tensor:
        score = query @ gallery.T  # [Q, V] or [Q, T]
        if head == "dsl":
            score = score * score.exp() * weight
        return score.topk(min(k, score.shape[1]), dim=1).indices

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


Ask = Callable[[Sequence[int]], object]


def milliseconds(server: Server, ask: Ask, numbers: Sequence[int], whole: bool = True) -> dict[str, float]:
    """Wall-clock time of a query: p50 and p95 alone and warm; `whole`: also cold, in batches, and p50 by stage.

    Figures of a batch are its time over its queries.
    """
    for number in numbers[:WARM_UP]:
        ask([number])
    took, stages = [], []
    for number in numbers:
        took.append(_timed(server, ask, [number]))
        stages.append(server.took)
    out = _percentiles("", took)
    if not whole:
        return out
    fill = torch.zeros(CACHE_FILL_BYTES // 4, device=server.encoder.device)
    cold = []
    for number in numbers[::COLD_SHARE]:
        fill.add_(1)
        cold.append(_timed(server, ask, [number]))
    batch = [numbers[n % len(numbers)] for n in range(BATCH)]
    ask(batch)
    batches = [_timed(server, ask, batch) / BATCH for _ in range(BATCHES)]
    out |= _percentiles("cold_", cold) | _percentiles(f"batch{BATCH}_", batches)
    return out | {name: round(1e3 * float(np.median([s[name] for s in stages])), 3) for name in stages[0]}


def _timed(server: Server, ask: Ask, numbers: Sequence[int]) -> float:
    """Seconds of one answer; the server waits for its device at the end of each stage."""
    start = time.perf_counter()
    ask(numbers)
    return time.perf_counter() - start


def _percentiles(name: str, seconds: Sequence[float]) -> dict[str, float]:
    p50, p95 = 1e3 * np.percentile(seconds, [50, 95])
    return {f"{name}p50": round(float(p50), 3), f"{name}p95": round(float(p95), 3)}


def gflop(ask: Ask, numbers: Sequence[int]) -> float:
    """Mean arithmetic of a query in 10^9 operations (a multiply and an add are two).

    Attention runs in its plain form while it is counted: the counter does not know the fused kernel of the CPU.
    """
    numbers = list(numbers)[:COUNTED]
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        for number in numbers:
            ask([number])
    return round(counter.get_total_flops() / len(numbers) / 1e9, 6)
