"""Sentences to clips: the trained models of a workspace in use."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ivcore.checkpoints import checkpoint as checkpoints
from ivcore.datasets.text_length import SHORT, num_tokens
from ivcore.errors import UserError
from ivcore.features.reader import Features
from ivcore.models import S2Model
from ivcore.models import device as devices
from ivcore.retrieval.embed import Encoder
from ivcore.retrieval.serving import Matcher
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store

VARIANTS = ("s2/sim", "s2/match", "clip/sim")
SURE = {
    "shown": "the report takes it",
    "alone": "the report takes it, the only one that was trained on this",
    "open": "the best of the report, which has not decided",
    "few": "the best of the report, which has too few clips to tell",
    "chance": "the best of the report, which has not shown it to beat guessing",
}
Found = dict[str, Any]


@torch.inference_mode()
def search(
    store: Store,
    variant: str,
    sentences: Sequence[str],
    top: int = 10,
    k: int = 16,
    split: str = "",
    device: str = "auto",
) -> Iterator[list[Found]]:
    """For each sentence the `top` best clips, best first: {rank, score, clip_id, path, start_s, end_s}.

    Args:
        variant: one of VARIANTS; s2/match looks at the `k` best by similarity again, pair by pair.
        split: only clips of train, val or test; "": every clip that was encoded.
    """
    with devices.memory("CUDA_VISIBLE_DEVICES= before the command, which leaves the GPU out,"):
        yield from _search(store, variant, sentences, top, k, split, device)


def _search(
    store: Store, variant: str, sentences: Sequence[str], top: int, k: int, split: str, device: str
) -> Iterator[list[Found]]:
    model, _, head = variant.partition("/")
    made = _newest(store, model)
    where = devices.choose(device)
    net, tokenizer = checkpoints.load(made["checkpoint"].path)
    text_len = made["checkpoint"].record()["facts"]["text_len"]
    encoder = Encoder(net.on(where), tokenizer, text_len, where, torch.float32)
    features = Features(made["features"])
    known = {c["clip_id"]: c for c in schemas.rows(made["manifest"].path / "manifest.parquet", schemas.MANIFEST)}
    clips = [known[c] for c in features.clip_ids if known[c]["media"] == "video" and split in ("", known[c]["split"])]
    if not clips:
        raise UserError(f"no clip of the split {split} was encoded; leave --split out to search in all")
    stored = np.array(features.rows_of([clip["clip_id"] for clip in clips]))

    def tokens_of(rows: np.ndarray) -> Tensor:
        return features.tokens(stored[rows].tolist())

    videos = encoder.videos(tokens_of, len(clips))
    # A server would keep the keys and values of what is asked for most (`Matcher.keep`).
    matcher = Matcher(net, tokens_of, max_bytes=0) if head == "match" and isinstance(net, S2Model) else None
    for sentence in sentences:
        ids, mask = tokenizer.encode([sentence], text_len)
        states, embedding = encoder.text(ids, mask)
        scores = (embedding.cpu() @ videos.T)[0]
        best = scores.topk(min(max(k, top) if matcher else top, len(clips))).indices
        if matcher and states is not None:
            first = best[:k]
            logits = matcher(states[0, : int(mask.sum())], first.numpy())
            scores, order = scores.clone(), logits.argsort(descending=True)
            scores[first] = logits
            best = torch.cat([first[order], best[k:]])
        yield [
            {"rank": n + 1, "score": round(float(scores[row]), 4), **{name: clips[row][name] for name in SHOWN}}
            for n, row in enumerate(best[:top].tolist())
        ]


SHOWN = ("clip_id", "path", "start_s", "end_s")


def advised(report: Any, sentence: str, language: str) -> tuple[str, str]:
    """The variant that the report names for such a sentence, and how sure it is of it."""
    text_class = "short" if num_tokens(sentence) <= SHORT else "long"
    wanted = {"language": language, "text_class": text_class, "direction": "t2v"}
    for said in (report or {}).get("advice", ()):
        if said["variant"] in VARIANTS and all(said[name] == value for name, value in wanted.items()):
            return said["variant"], f"{SURE[said['state']]}, {language}, {text_class}"
    return "clip/sim", f"the report advises nothing for {language}, {text_class}"


def _newest(store: Store, model: str) -> dict[str, Artifact]:
    """What the newest scores of a model were made from: its manifest, features and checkpoint."""
    records = [a.record() for a in store.all("scores")]
    mine = [r for r in records if r["inputs"]["checkpoint"].startswith(f"{model}/")]
    if not mine:
        raise UserError(f"{Path(store.home)} has no scores of {model}; run iv demo or iv run first, or give --home")
    newest = max(mine, key=lambda r: r["created"])
    return {name: store.get(id) for name, id in newest["inputs"].items()}
