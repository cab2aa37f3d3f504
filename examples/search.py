"""Rank the test videos of a finished workspace for a sentence: s2 by similarity, then with matching; and clip.

    .venv/bin/python examples/search.py "a red circle that grows above a blue square that stays still"

Needs a workspace with scores in it (`iv demo`, `iv run`); --home says where, else ./workspace.
"""

import argparse
from pathlib import Path

import torch

from ivcore.data.loader import Captions, Features
from ivcore.metrics.embed import Encoder
from ivcore.metrics.serving import Matcher
from ivcore.store import Artifact, Store
from ivcore.train import checkpoint as checkpoints

TOP = 5


def newest_scores(store: Store, model: str) -> dict[str, Artifact]:
    """What the newest scores of a model were made from: its manifest, features and checkpoint."""
    records = [a.record() for a in store.all() if a.kind == "scores"]
    mine = [r for r in records if r["inputs"]["checkpoint"].startswith(f"{model}/")]
    if not mine:
        raise SystemExit(f"{store.home} has no scores of {model}: run `iv demo` first, or give --home")
    newest = max(mine, key=lambda r: r["created"])
    return {name: store.get(id) for name, id in newest["inputs"].items()}


@torch.no_grad()
def search(store: Store, model: str, sentence: str, k: int = 16) -> dict[str, list[str]]:
    """Clip ids by head, best first."""
    made = newest_scores(store, model)
    net, tokenizer = checkpoints.load(made["checkpoint"].path)
    text_len = made["checkpoint"].record()["facts"]["text_len"]
    encoder = Encoder(net, tokenizer, text_len, torch.device("cpu"), torch.float32)
    features, seen = Features(made["features"]), Captions(made["manifest"]).clips("test")
    clips = [clip for clip in seen if clip in set(features.clip_ids)]
    tokens = features.tokens(features.rows_of(clips))  # [V, N, C]
    videos = encoder.videos(lambda rows: tokens[rows], len(clips))  # [V, E]
    ids, mask = tokenizer.encode([sentence], text_len)
    states, embedding = encoder.text(ids, mask)
    best = (embedding @ videos.T)[0].topk(min(k, len(clips))).indices
    found = {"sim": [clips[n] for n in best]}
    if states is not None:  # s2: look again at the best k, pair by pair
        # What the report times; a server would keep the keys and values of what is asked for most (`Matcher.keep`).
        logits = Matcher(net, lambda rows: tokens[rows], max_bytes=0)(states[0, : int(mask.sum())], best.numpy())
        found["match"] = [clips[n] for n in best[logits.argsort(descending=True)]]
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentence")
    parser.add_argument("--home", type=Path, default=Path("workspace"))
    given = parser.parse_args()
    for model in ("s2", "clip"):
        for head, clips in search(Store(given.home), model, given.sentence).items():
            print(f"{model}/{head:<6}", *clips[:TOP])
