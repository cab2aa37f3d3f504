"""Several data sets as one: data.mix names them. Ids carry the name of their part, so they never collide.

Upstream numbers the samples of each data set from 0, and two clips of one number became true answers to each other's
captions. Here a video that two parts share is kept once, by its bytes (ivcore/datasets/ingest.py). In a run file:

    [data]
    dataset = "mix"

    [[data.mix]]
    name = "web"                # `--set data.mix.web.weight=2` reaches it
    root = "/web"
    annotations = "/web/captions.csv"

    [[data.mix]]
    name = "stills"             # jpg, png, webp, bmp: clips of one frame
    root = "/stills"
    annotations = "/stills/captions.csv"
    weight = 2                  # comes by twice in an epoch
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from ivcore.config import DataConfig, PartConfig
from ivcore.datasets.cards import Card
from ivcore.errors import UserError
from ivcore.names import module
from ivcore.store.artifacts import Store
from ivcore.store.durable import put_link

CARD = Card(
    name="A mix of data sets",
    split="train, val, test: as each part says",
    caption_rule="each",
    languages=("en", "zh", "es"),
    licence="those of its parts",
    citation="those of its parts",
)


def recipe(store: Store, data: DataConfig) -> dict[str, Any]:
    """Name, weight and recipe of each part."""
    parts = [{"name": p.name, "weight": p.weight, **_dataset(p).recipe(store, data.of(p))} for p in _parts(data)]
    return {"dataset": "mix", "parts": parts}


def root(store: Store, data: DataConfig) -> Path:
    """A folder with a link to the root of each part, by its name."""
    roots = {part.name: str(_dataset(part).root(store, data.of(part))) for part in _parts(data)}
    name = hashlib.sha256(json.dumps(roots, sort_keys=True).encode()).hexdigest()[:24]
    folder = store.home / "cache" / "mix" / name
    folder.mkdir(parents=True, exist_ok=True)
    for part, target in roots.items():
        put_link(folder / part, target)
    return folder


def rows(data: DataConfig, root: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Clips and captions of every part, ids and paths begun with its name."""
    clips, captions = [], []
    for part in _parts(data):
        some, texts = _dataset(part).rows(data.of(part), (root / part.name).resolve())
        for clip in some:
            named = {k: f"{part.name}/{clip[k]}" for k in ("clip_id", "path", "family") if clip.get(k) is not None}
            clips.append({**clip, **named, "source": part.name, "weight": part.weight})
        for text in texts:
            if text.get("pairs"):
                raise UserError(f"data.mix.{part.name}: {part.dataset} has classes or options; it is scored by itself")
            named = {name: f"{part.name}/{text[name]}" for name in ("clip_id", "caption_id")}
            captions.append({**text, **named})
    return clips, captions


def unlisted(data: DataConfig, root: Path) -> list[str]:
    """Videos that a part's folder holds and its annotation does not name."""
    out = []
    for part in _parts(data):
        if hasattr(dataset := _dataset(part), "unlisted"):
            some = dataset.unlisted(data.of(part), (root / part.name).resolve())
            out += [f"{part.name}/{path}" for path in some]
    return out


def _parts(data: DataConfig) -> tuple[PartConfig, ...]:
    if not data.mix:
        raise UserError("data.mix is empty; name the data sets of the mix: [[data.mix]] with name, dataset and root")
    return data.mix


def _dataset(part: PartConfig) -> Any:
    if part.dataset == "mix":
        raise UserError(f"data.mix.{part.name}: a mix in a mix; name its parts beside the others")
    return module("ivcore.datasets.sets", part.dataset)
