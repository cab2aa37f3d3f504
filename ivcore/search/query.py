"""A sentence to clips: the trained models of a workspace in use."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ivcore.checkpoints import checkpoint as checkpoints
from ivcore.datasets.text_length import SHORT, num_tokens
from ivcore.errors import UserError
from ivcore.features.reader import Features
from ivcore.models import device as devices
from ivcore.retrieval.embed import Encoder
from ivcore.retrieval.serving import Matcher
from ivcore.store import schemas
from ivcore.store.artifacts import Artifact, Store
from ivcore.verdict.adviser import Ask, answer

VARIANTS = ("s2/sim", "s2/match", "clip/sim")
Found = dict[str, Any]


@torch.inference_mode()
@devices.memory("CUDA_VISIBLE_DEVICES= before the command, which leaves the GPU out,")
def search(
    store: Store, variant: str, sentence: str, top: int = 10, k: int = 16, split: str = "", device: str = "auto"
) -> list[Found]:
    """The `top` best clips, best first: {rank, score, clip_id, path, start_s, end_s}.

    Args:
        variant: one of VARIANTS; s2/match looks at the `k` best by similarity again, pair by pair.
        split: only clips of train, val or test; "": every clip that was encoded.
    """
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

    ids, mask = tokenizer.encode([sentence], text_len)
    states, embedding = encoder.text(ids, mask)
    scores = (embedding.cpu() @ encoder.videos(tokens_of, len(clips)).cpu().T)[0]
    best = scores.topk(min(max(k, top) if head == "match" else top, len(clips))).indices
    if head == "match" and states is not None:
        # A server would keep the keys and values of what is asked for most (`Matcher.keep`).
        first = best[:k]
        logits = Matcher(net, tokens_of, max_bytes=0)(states[0, : int(mask.sum())], first.numpy())  # type: ignore[arg-type]
        scores, order = scores.clone(), logits.argsort(descending=True)
        scores[first] = logits
        best = torch.cat([first[order], best[k:]])
    return [
        {"rank": n + 1, "score": round(float(scores[row]), 4), **{name: clips[row][name] for name in SHOWN}}
        for n, row in enumerate(best[:top].tolist())
    ]


SHOWN = ("clip_id", "path", "start_s", "end_s")


def advised(report: Any, sentence: str, language: str) -> tuple[str, str]:
    """The variant that the report's own rows speak for, and why."""
    length = min(num_tokens(sentence), SHORT + 1)
    try:
        said = answer(Ask("retrieval", (language,), length, "t2v"), report)
    except UserError:
        said = None
    best = said.variant if said and said.basis == "measured" else None
    variant = f"{best['model']}/{best['head']}" if best else ""
    if variant in VARIANTS:
        return variant, f"the report's advice for {language}"
    return "clip/sim", f"the report advises nothing for {language}"


def _newest(store: Store, model: str) -> dict[str, Artifact]:
    """What the newest scores of a model were made from: its manifest, features and checkpoint."""
    records = [a.record() for a in store.all("scores")]
    mine = [r for r in records if r["inputs"]["checkpoint"].startswith(f"{model}/")]
    if not mine:
        raise UserError(f"{Path(store.home)} has no scores of {model}; run iv demo or iv run first, or give --home")
    newest = max(mine, key=lambda r: r["created"])
    return {name: store.get(id) for name, id in newest["inputs"].items()}
