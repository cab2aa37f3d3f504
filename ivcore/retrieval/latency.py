"""What a query costs a server: milliseconds alone and in batches, warm and cold, by stage, and arithmetic.

Shapes: Q queries of a batch, T texts, V videos, L text tokens, H hidden, N video tokens, C vision width, E embedding,
k candidates.

Text to video: the caption comes as a string, video embeddings (and for matching the stored tokens) are at hand.
Video to text: the video comes as stored tokens, its way through the trunk is not counted; text embeddings (and for
matching text states) are at hand. Matching is what a search runs, `serving.Matcher` for a text and `rerank` for a
video or a batch: keys and values of as many videos as a budget holds are kept, the others are read folded;
`match_folded` keeps none.

Stages: encode (string or tokens to an embedding), similarity (the k best of the gallery), rerank (matching). Cold:
the processor's caches were filled with something else before the query, as on a machine that does other things.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ivcore.models import S2Model
from ivcore.retrieval.embed import Encoder, Texts, TokensOf
from ivcore.retrieval.rerank import rerank
from ivcore.retrieval.serving import Matcher

WARM_UP = 3  # queries run first and not timed
COUNTED = 4  # queries whose arithmetic is counted; the mean is given
BATCH = 32  # queries of a batch
BATCHES = 3  # batches timed, after one that is not
COLD_SHARE = 6  # one in so many of the timed queries is asked again with cold caches
CACHE_FILL_BYTES = 64 << 20  # what is written over before a cold query
KV_BYTES = 250_000_000  # of keys and values kept, unless told otherwise


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
    kv_bytes: int = KV_BYTES
    took: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.encoder.model, S2Model):
            self.matcher = Matcher(self.encoder.model, self.tokens_of, self.kv_bytes, self.encoder.dtype)
            self.folded = copy.copy(self.matcher)  # the same weights
            self.folded.hot, self.folded.max_bytes = {}, 0
            self.matcher.keep(np.arange(len(self.videos)))

    @property
    def kv_share(self) -> float:
        """Share of the videos whose keys and values are kept."""
        return len(self.matcher.hot) / len(self.videos)

    def ask(self, direction: str, head: str, numbers: Sequence[int], k: int | None = None) -> Tensor:
        """Answer texts (t2v) or videos (v2t) `numbers`: the best k candidates of each, best first, int [Q, k]."""
        start = self._lap("", time.perf_counter())
        texts, tokens, query = self._encode(direction, numbers)
        start = self._lap("encode", start)
        sides = (self.videos, self.video_weight) if direction == "t2v" else (self.texts.embedding, self.text_weight)
        top = self._best(query, *sides, head, k or self.k)
        start = self._lap("similarity", start)
        if head.startswith("match"):
            if direction == "t2v" and len(numbers) == 1:
                assert texts.states is not None
                matcher = self.folded if head == "match_folded" else self.matcher
                logits = matcher(texts.states[0], top[0].numpy())[None]
            else:
                logits = self._match(direction, texts, tokens, top.numpy())
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

    def _match(self, direction: str, texts: Texts, tokens: Tensor | None, top: np.ndarray) -> Tensor:
        """Logits [Q, k] of a batch of texts, or of videos: each video and text is prepared once for all of them."""
        assert isinstance(self.encoder.model, S2Model) and texts.states is not None and texts.mask is not None
        query = np.arange(len(top)).repeat(top.shape[1])
        if direction == "t2v":
            states, mask, tokens_of = texts.states, texts.mask, self.tokens_of
            every = np.stack([query, top.ravel()], axis=1)
        else:
            assert tokens is not None
            used, text = np.unique(top, return_inverse=True)
            states, mask, tokens_of = texts.states[used], texts.mask[used], lambda rows: tokens[torch.from_numpy(rows)]
            every = np.stack([text.ravel(), query], axis=1)
        pairs, where = np.unique(every, axis=0, return_inverse=True)
        logits = rerank(self.encoder.model, states, mask, tokens_of, pairs, self.encoder.dtype)
        return logits[torch.from_numpy(where.reshape(top.shape))]

    def _best(self, query: Tensor, gallery: Tensor, weight: Tensor, head: str, k: int) -> Tensor:
        """The k best of each query, best first: int [Q, k]."""
        score = query @ gallery.T  # [Q, V] or [Q, T]
        if head == "dsl":
            score = score * score.exp() * weight
        return score.topk(min(k, score.shape[1]), dim=1).indices


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

    Attention runs in its plain form while it is counted: the counter does not know the fused kernel of the CPU. Of
    oneDNN's product (`packed.product`) it is told.
    """
    numbers = list(numbers)[:COUNTED]
    told = {torch.ops.mkldnn._linear_pointwise: _linear_flop}
    with FlopCounterMode(display=False, custom_mapping=told) as counter, sdpa_kernel(SDPBackend.MATH):
        for number in numbers:
            ask([number])
    return float(round(counter.get_total_flops() / len(numbers) / 1e9, 6))


def _linear_flop(x: Sequence[int], weight: Sequence[int], *_: object, **__: object) -> int:
    """Operations of x [m, k] times weight [n, k] transposed, from their shapes."""
    return 2 * x[0] * x[1] * weight[0]
