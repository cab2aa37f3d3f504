"""Retrieval annotations in upstream's own format: a json list of videos with captions.

Source: InternVideo2 multi_modality, dataset/ret_dataset.py.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ivcore.datasets.cards import Card, Files
from ivcore.datasets.published import Annotation, Clip, published
from ivcore.errors import UserError

CARD = Card(
    name="Upstream's json, retrieval",
    split="all of the file",
    caption_rule="each",
    languages=("en", "zh", "es"),
    licence="that of your videos",
    citation="none",
    notes='[{"video": path, or a list of paths that share the caption, "caption": text or list}, ...]; '
    "data.caption_rule = paragraph joins the captions of a video, data.language says what they are in.",
)


def read(files: Files) -> Annotation:
    """Entries of one video give it captions; where an entry names several videos, captions are shared by them."""
    found = [(paths, texts(entry, "caption", where)) for entry, paths, where in entries(files)]
    if any(len(paths) > 1 for paths, _ in found):
        shared = [caption for _, captions in found for caption in captions]
        true: dict[str, list[int]] = {}
        for n, paths in enumerate(paths for paths, captions in found for _ in captions):
            for path in paths:
                true.setdefault(path, []).append(n)
        return Annotation([Clip(path, clip_id=path, answers=tuple(some)) for path, some in true.items()], shared)
    said: dict[str, list[str]] = {}
    for [path], captions in found:
        said.setdefault(path, []).extend(captions)
    return Annotation([Clip(path, clip_id=path, captions=tuple(captions)) for path, captions in said.items()])


def entries(files: Files) -> Iterator[tuple[dict[str, Any], list[str], str]]:
    """(entry, its paths, where it stands) of a json list; UserError naming an entry without a video."""
    [[file]] = files.values()
    try:
        found = json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except ValueError as e:
        raise UserError(f"{file} cannot be read as json: {e}; look for a quote or bracket left open") from None
    if not isinstance(found, list) or not found:
        raise UserError(f"{file} is no list of entries; give [{{video, caption}}, ...]")
    for n, entry in enumerate(found, 1):
        where = f"{file} entry {n}"
        if not isinstance(entry, dict) or not {"video", "image"} & set(entry):
            raise UserError(f"{where} is {entry!r:.80}; it must have a video: a path, or a list of paths")
        yield entry, texts(entry, "video" if "video" in entry else "image", where), where


def texts(entry: dict[str, Any], name: str, where: str) -> list[str]:
    """A field that is a text or a list of texts, as a list; UserError for anything else."""
    value = entry.get(name)
    value = [value] if isinstance(value, str) else value
    if not isinstance(value, list) or not value or not all(isinstance(x, str) and x.strip() for x in value):
        raise UserError(f"{where}: {name} = {value!r:.80} is neither a text nor a list of texts")
    return value


recipe, root, rows = published(__name__, CARD, read)
