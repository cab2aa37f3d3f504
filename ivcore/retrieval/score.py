"""Step 6: a checkpoint and features -> scores.parquet: every head, language, text class and direction.

Shapes: T texts, V videos of the gallery, E embedding, k candidates.

sim is the cosine. dsl (dual softmax) multiplies it by a softmax over the other side's queries; it needs the whole test
set at once, so a server cannot have it. match re-scores the k best by sim, each direction by its own list; its logit
is not mixed with sim. Source: InternVideo2 multi_modality, tasks/retrieval_utils.py.
"""

import functools
import hashlib
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from ivcore.checkpoints import checkpoint as checkpoints
from ivcore.config import EvalConfig, TrainConfig
from ivcore.datasets.captions import Captions
from ivcore.features.reader import Features
from ivcore.models import S2Model
from ivcore.models import device as devices
from ivcore.models.base import VideoTextModel
from ivcore.retrieval import machine
from ivcore.retrieval.answers import answers
from ivcore.retrieval.embed import Encoder, Texts, TokensOf
from ivcore.retrieval.heads import dsl, dual_weights, matched
from ivcore.retrieval.latency import Server, gflop, milliseconds
from ivcore.retrieval.ranking import UNSCORED, Ranked, ScoreOf, rank
from ivcore.retrieval.rerank import k_steps, rerank, unite
from ivcore.retrieval.slices import Slice, chosen, described, scored
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Draft, Store
from ivcore.store.log import Log

DIRECTIONS = ("t2v", "v2t")


@torch.no_grad()
@devices.memory("train.dtype = bfloat16, or fewer frames,")
def write_scores(
    draft: Draft,
    store: Store,
    evaluation: EvalConfig,
    train: TrainConfig,
    manifest: Artifact,
    features: Artifact,
    checkpoint: Artifact,
    log: Log,
) -> None:
    """Write scores.parquet; timings go to `draft.measured`, everything else is the same on every run.

    Raises:
        UserError: when the split has no captions to score.
    """
    torch.set_num_threads(train.threads)
    device = devices.choose(train.device)
    model, tokenizer = checkpoints.load(checkpoint.path)
    text_len = _text_len(checkpoint, manifest, model)
    source, captions = Features(features), Captions(manifest)
    encoder = Encoder(model.on(device), tokenizer, text_len, device, getattr(torch, train.dtype))
    wanted, gallery = captions.clips(evaluation.split), scored(captions, set(source.clip_ids), evaluation)
    rows = np.array(source.rows_of(gallery))

    def tokens_of(videos: np.ndarray) -> Tensor:
        return source.tokens(rows[videos])  # [n, N, C]

    machine.reset_peak(device)
    start = time.perf_counter()
    videos = encoder.videos(tokens_of, len(gallery))  # [V, E]
    embed_ms = 1e3 * (time.perf_counter() - start) / len(gallery)
    tables, queries, left_out, slices = [], 0, 0, {}
    draft.measured["query_ms"], draft.measured["k_ms"], draft.facts["query_gflop"] = {}, {}, {}
    draft.facts["kv_share"] = {}
    for part, head, found, figures in answers(encoder, captions, gallery, videos, tokens_of, evaluation):
        tables.append(_table(found, part, gallery, checkpoint.kind, head, "v2t"))
        queries += len(found.best)
        draft.facts.setdefault("metrics", {})[f"{head}/{part.name}/v2t"] = figures
        slices[part.name] = {"n_texts": len(part.captions), "n_videos": len(gallery), "n_asked": len(part.asked)}
        log({f"{name}/{head}/{part.name}": value for name, value in figures.items()}, queries)
    for part, dropped in described(captions, gallery, evaluation):
        left_out += dropped
        texts = encoder.texts(part.captions)
        scorers = _scorers(encoder, part, texts, videos, tokens_of, evaluation)
        for head, direction, score_of in scorers:
            num = len(gallery) if direction == "t2v" else len(part.captions)
            found = rank(score_of, num, part.pairs[direction], evaluation.k)
            tables.append(_table(found, part, gallery, checkpoint.kind, head, direction))
            queries += len(found.best)
            log({f"r1/{head}/{part.name}/{direction}": 100.0 * float((found.best == 1).mean())}, queries)
        slices[part.name] = {"n_texts": len(part.captions), "n_videos": len(gallery), "n_asked": len(part.asked)}
        _costs(draft, encoder, part, texts, videos, tokens_of, evaluation)
    schemas.write(draft.path / "scores.parquet", pa.concat_tables(tables), schemas.SCORES)
    record = features.record()
    stored = np.dtype(record["config"].get("dtype", "float16")).itemsize
    embedding = videos.shape[1] * videos.element_size()
    tokens = record["facts"]["num_tokens"] * record["facts"]["width"] * stored
    heads = ("sim", "dsl", "match") if checkpoint.kind == "s2" else ("sim", "dsl")
    draft.facts.update(
        model=checkpoint.kind,
        heads=list(heads),
        split=evaluation.split,
        split_sha256=_digest(captions, gallery, evaluation),
        slices=slices,
        k=evaluation.k,
        n_videos=len(gallery),
        clips_left_out=len(wanted) - len(gallery),
        texts_left_out=left_out,
        text_len=text_len,
        dtype=train.dtype,
        device=device.type,
        threads=train.threads,
        index_bytes_per_video={h: embedding + (tokens if h == "match" else 0) for h in heads},
    )
    draft.measured.update(
        machine=machine.name(device), peak_mb=machine.peak_mb(device), embed_ms_per_video=round(embed_ms, 4)
    )
    if captions.task != "retrieval":
        draft.facts["task"] = captions.task
    draft.count(ok=queries)


def _text_len(checkpoint: Artifact, manifest: Artifact, model: VideoTextModel) -> int:
    """Tokens of a text: in s2 what the data set's protocol says if it says any and the model has positions for them."""
    own = int(checkpoint.record()["facts"]["text_len"])
    protocol = manifest.record()["facts"].get("card", {}).get("text_len")
    if protocol is None or not isinstance(model, S2Model):
        return own
    return min(int(protocol), model.config.text_shape().max_position_embeddings)


def _scorers(
    encoder: Encoder, part: Slice, texts: Texts, videos: Tensor, tokens_of: TokensOf, evaluation: EvalConfig
) -> Iterator[tuple[str, str, ScoreOf]]:
    """(head, direction, scores of a run of queries) of everything this model can be scored by."""
    text, k = texts.embedding, evaluation.k
    sides = {"t2v": (text, videos), "v2t": (videos[part.asked], text)}
    weights = dict(zip(("v2t", "t2v"), dual_weights(text, videos)))
    sim: dict[str, ScoreOf] = {d: (lambda a, b, q=q, c=c: q[a:b] @ c.T) for d, (q, c) in sides.items()}  # type: ignore[misc]

    def dual(direction: str) -> ScoreOf:
        def score(a: int, b: int) -> Tensor:
            return dsl(sim[direction](a, b), weights[direction])

        return score

    for direction in DIRECTIONS:
        yield "sim", direction, sim[direction]
        yield "dsl", direction, dual(direction)
    if isinstance(encoder.model, S2Model):
        tops = {d: rank(sim[d], len(sides[d][1]), part.pairs[d], k).top for d in DIRECTIONS}
        for direction, score_of in _match(encoder, part, texts, tokens_of, tops, len(videos)).items():
            yield "match", direction, score_of


def _match(
    encoder: Encoder, part: Slice, texts: Texts, tokens_of: TokensOf, tops: dict[str, np.ndarray], num_videos: int
) -> dict[str, ScoreOf]:
    """Matching logits of each direction's own k candidates, UNSCORED elsewhere."""
    assert isinstance(encoder.model, S2Model) and texts.states is not None and texts.mask is not None
    pairs = unite(tops["t2v"], tops["v2t"], part.asked)
    logits = rerank(encoder.model, texts.states, texts.mask, tokens_of, pairs, encoder.dtype)
    logits = logits.clamp(min=UNSCORED + 1)  # whoever was looked at stands before whoever was not
    num_texts = len(part.captions)
    known = pairs[:, 1] * num_texts + pairs[:, 0]  # sorted: by video, then text

    def scores(direction: str, first: int, last: int) -> Tensor:
        top = tops[direction][first:last]  # [q, k]
        query = np.arange(first, last)[:, None]
        wanted = top * num_texts + query if direction == "t2v" else part.asked[query] * num_texts + top
        mine = logits[torch.from_numpy(np.searchsorted(known, wanted))]
        return matched(top, mine, num_videos if direction == "t2v" else num_texts)

    return {d: (lambda a, b, d=d: scores(d, a, b)) for d in DIRECTIONS}  # type: ignore[misc]


def _table(found: Ranked, part: Slice, gallery: list[str], model: str, head: str, direction: str) -> pa.Table:
    """The k best of each query and the true ones beyond them, as rows of SCORES sorted by query and rank."""
    pairs, k = part.pairs[direction], found.top.shape[1]
    num = len(found.top)
    beyond = found.pair_rank > k
    query = np.concatenate([np.arange(num).repeat(k), pairs[beyond, 0]])
    candidate = np.concatenate([found.top.ravel(), pairs[beyond, 1]])
    place = np.concatenate([np.tile(np.arange(1, k + 1), num), found.pair_rank[beyond]])
    score = np.concatenate([found.top_score.ravel(), found.pair_score[beyond]])
    width = max(len(gallery), len(part.captions))
    is_true = np.isin(query * width + candidate, pairs[:, 0] * width + pairs[:, 1])
    order = np.lexsort((place, query))
    clips, texts = np.array(gallery, dtype=object), np.array(part.caption_ids, dtype=object)
    asked, answers = (texts, clips) if direction == "t2v" else (clips[part.asked], texts)
    columns = {
        "query_id": asked[query[order]],
        "candidate_id": answers[candidate[order]],
        **{
            name: np.full(len(order), value, dtype=object)
            for name, value in (
                ("model", model),
                ("head", head),
                ("direction", direction),
                ("language", part.language),
                ("text_class", part.text_class),
            )
        },
        "rank": place[order].astype(np.int32),
        "score": score[order].astype(np.float32),
        "relevant": is_true[order],
    }
    schema = schemas.SCORES.schema()
    return pa.table({name: pa.array(columns[name], schema.field(name).type) for name in schema.names}, schema)


def _costs(
    draft: Draft,
    encoder: Encoder,
    part: Slice,
    texts: Texts,
    videos: Tensor,
    tokens_of: TokensOf,
    evaluation: EvalConfig,
) -> None:
    """Time and count single queries, spread evenly over the slice; matching of texts at smaller k, too."""
    text_weight, video_weight = dual_weights(texts.embedding, videos)
    server = Server(
        encoder, part.captions, texts, videos, tokens_of, evaluation.k, text_weight, video_weight,
        kv_bytes=int(evaluation.kv_gb * 1e9),
    )  # fmt: skip
    has_match = isinstance(encoder.model, S2Model)
    if has_match:
        draft.facts["kv_share"][part.name] = round(server.kv_share, 4)
    for direction, pool in (("t2v", np.arange(len(part.captions))), ("v2t", part.asked)):
        spread = np.linspace(0, len(pool) - 1, min(evaluation.latency_queries, len(pool))).round().astype(int)
        numbers = pool[spread].tolist()
        heads = ["sim", "dsl"] + (["match"] if has_match else [])
        heads += ["match_folded"] if has_match and direction == "t2v" else []
        for head in heads:
            ask = functools.partial(server.ask, direction, head)
            name = f"{head}/{part.name}/{direction}"
            draft.facts["query_gflop"][name] = gflop(ask, numbers)
            draft.measured["query_ms"][name] = milliseconds(server, ask, numbers, whole=head in ("sim", "match"))
        if has_match and direction == "t2v":
            for k in k_steps(min(evaluation.k, len(videos)))[:-1]:
                ask = functools.partial(server.ask, direction, "match", k=k)
                draft.measured["k_ms"][f"{k}/{part.name}"] = milliseconds(server, ask, numbers[::4], whole=False)


def _digest(captions: Captions, gallery: list[str], evaluation: EvalConfig) -> str:
    """sha256, hex, of what was asked: the clips of the gallery, then every caption with its clip or clips."""
    sha = hashlib.sha256("\n".join(gallery).encode())
    for part, _ in described(captions, gallery, evaluation):
        _say(sha, part, [(text, video) for text, video in part.pairs["t2v"]], gallery)
    for part in chosen(captions, gallery, evaluation):
        pairs = part.pairs["v2t"] if part.options is None else part.options
        _say(sha, part, [(text, part.asked[query]) for query, text in pairs], gallery)
        sha.update(np.ascontiguousarray(part.pairs["v2t"]).tobytes())
    return sha.hexdigest()


def _say(sha: "hashlib._Hash", part: Slice, pairs: list[tuple[int, int]], gallery: list[str]) -> None:
    clips: dict[int, list[str]] = {}
    for text, video in pairs:
        clips.setdefault(int(text), []).append(gallery[video])
    for n, (caption_id, caption) in enumerate(zip(part.caption_ids, part.captions)):
        sha.update(f"\n{part.name}\t{caption_id}\t{','.join(clips.get(n, ()))}\t{caption}".encode())
