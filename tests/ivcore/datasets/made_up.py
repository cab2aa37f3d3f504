"""Annotations that are made up, and the rows that a data set makes of them."""

from pathlib import Path

import pytest

from ivcore import names
from ivcore.config import DataConfig
from ivcore.datasets import cards

PACKAGE = "ivcore.datasets.sets"

NAMES = names.names(PACKAGE)

REAL = (Path(__file__).parents[3] / "../shared/data/annotations").resolve()

real = pytest.mark.skipif(not REAL.is_dir(), reason="needs the annotation files")


def card(name: str) -> cards.Card:
    return names.module(PACKAGE, name).CARD


def rows(name: str, annotations: Path, **more) -> tuple[list[dict], list[dict]]:
    data = DataConfig(dataset=name, root=str(annotations.parent), annotations=str(annotations), **more)
    return names.module(PACKAGE, name).rows(data, annotations.parent)


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder / next(iter(files))


def texts(captions: list[dict], clip_id: str) -> list[str]:
    """True texts of a clip, its own and those that pairs name."""
    return [
        c["caption"]
        for c in captions
        if (c["clip_id"] == clip_id) or [clip_id, True] in [list(p) for p in c.get("pairs", ())]
    ]
