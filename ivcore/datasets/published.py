"""A published data set is a card and a reader: its annotation files become rows of clips and captions."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ivcore import names
from ivcore.config import DataConfig
from ivcore.datasets import cards
from ivcore.datasets.cards import Card, Files
from ivcore.datasets.files import Place, digests, need_one, root_folder
from ivcore.errors import UserError
from ivcore.store.artifacts import Store
from ivcore.store.known_files import sha256_file

Row = dict[str, Any]


@dataclass(frozen=True)
class Clip:
    """A clip of an annotation. `answers` are places in `options` if it has its own, else in the annotation's texts."""

    path: str
    clip_id: str = ""  # else the path without its ending
    captions: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()
    start_s: float | None = None
    end_s: float | None = None
    family: str = ""  # else its file


@dataclass(frozen=True)
class Annotation:
    """Clips, and the texts that no single clip owns: classes, options of all, captions of several videos."""

    clips: list[Clip]
    texts: list[str] = field(default_factory=list)


Reader = Callable[[Files], Annotation]
Recipe = Callable[[Store, DataConfig], Row]
Root = Callable[[Store, DataConfig], Path]
Rows = Callable[[DataConfig, Path], tuple[list[Row], list[Row]]]


def published(module: str, card: Card, read: Reader) -> tuple[Recipe, Root, Rows]:
    """`recipe`, `root` and `rows` of a data set that is a card and a reader; `module` is its __name__."""
    name = module.rpartition(".")[2]

    def recipe(store: Store, data: DataConfig) -> Row:
        """Digests of the annotation and of the bytes of every video that is there."""
        files, folder = cards.checked(name, card, data), root_folder(data)
        place = Place(data, folder)
        found = [place.on_disk(clip.path) for clip in _annotation(card, read, files).clips]
        sha256 = {p.name: sha256_file(p) for some in files.values() for p in some}
        read_as = {"caption_rule": data.caption_rule, "language": data.language} if not card.files else {}
        return {"dataset": name, "annotations_sha256": sha256, **read_as, **digests(store, folder, found)}

    def root(store: Store, data: DataConfig) -> Path:
        """data.root, resolved; UserError when it is not a folder."""
        return root_folder(data)

    def rows(data: DataConfig, root: Path) -> tuple[list[Row], list[Row]]:
        """Clips and captions; a caption's `pairs` name further clips, and whether it is true of them."""
        clips, captions = _rows(name, card, read, data)
        place = Place(data, root)
        clips = [clip | place.on_disk(clip["path"]) for clip in clips]
        need_one(clips, data.annotations)
        return clips, captions

    return recipe, root, rows


def counts(name: str, annotations: str, allow_unverified: bool = False) -> dict[str, int]:
    """Numbers of videos and captions in annotation files that pass the card of data set `name`; no video is needed.

    Raises:
        UserError: as `cards.checked` and `cards.counted` do.
    """
    dataset = names.module("ivcore.datasets.sets", name)
    if not hasattr(dataset, "read"):
        raise UserError(f"data set {name!r} has no annotation of its own to check")
    data = DataConfig(dataset=name, annotations=annotations, allow_unverified=allow_unverified)
    clips, captions = _rows(name, dataset.CARD, dataset.read, data)
    return {"videos": len(clips), "captions": len(captions)}


def table(card: Card, annotation: Annotation, data: DataConfig) -> tuple[list[Row], list[Row]]:
    """Rows of clips and captions, everything in the split `test`.

    Captions of a clip are named CLIP#N, texts of the annotation text#N. Classes and options belong to the clip "";
    their `pairs` say which clips they are put to and whether they are true of them.

    Raises:
        UserError: a clip stands twice, or an answer names no text.
    """
    clips: dict[str, Row] = {}
    captions: list[Row] = []
    language = card.languages[0] if card.files else data.language
    rule = card.caption_rule if card.files else data.caption_rule
    kind = {"language": language, "text_class": card.text_class}

    def caption(id: str, clip_id: str, text: str, pairs: list[tuple[str, bool]]) -> Row:
        return {"caption_id": id, "clip_id": clip_id, **kind, "caption": text, **({"pairs": pairs} if pairs else {})}

    shared: list[list[tuple[str, bool]]] = [[] for _ in annotation.texts]
    for clip in annotation.clips:
        clip_id = clip.clip_id or str(Path(clip.path).with_suffix(""))
        if clip_id in clips:
            raise UserError(f"clip {clip_id!r} stands twice in the annotation of {card.name}")
        window = {"start_s": clip.start_s, "end_s": clip.end_s}
        ids = {"clip_id": clip_id, "path": clip.path, "family": clip.family or None}
        clips[clip_id] = {**ids, "split": "test", **window, "published": True}
        texts = (" ".join(clip.captions),) if rule == "paragraph" and clip.captions else clip.captions
        captions += [caption(f"{clip_id}#{n:04d}", clip_id, text, []) for n, text in enumerate(texts)]
        num = len(clip.options) or len(annotation.texts)
        if any(not 0 <= answer < num for answer in clip.answers) or (clip.options and not clip.answers):
            raise UserError(
                f"{card.name}: clip {clip_id!r} has answers {list(clip.answers)}, and {num} texts to choose"
            )
        for n, text in enumerate(clip.options):
            captions.append(caption(f"{clip_id}#{n:04d}", "", text, [(clip_id, n in clip.answers)]))
        if not clip.options:
            for answer in dict.fromkeys(clip.answers):
                shared[answer].append((clip_id, True))
    for n, text in enumerate(annotation.texts):
        owned = card.task == "retrieval"  # by the first of its clips; the others are pairs
        owner, pairs = (shared[n][0][0], shared[n][1:]) if owned else ("", shared[n])
        captions.append(caption(f"text#{n:05d}", owner, text, pairs))
    return list(clips.values()), captions


def _rows(name: str, card: Card, read: Reader, data: DataConfig) -> tuple[list[Row], list[Row]]:
    """Rows of the annotation that `data` names, after it is held against the card."""
    clips, captions = table(card, _annotation(card, read, cards.checked(name, card, data)), data)
    cards.counted(name, card, len(clips), len(captions))
    return clips, captions


def content(annotation: Annotation) -> str:
    """sha256 in hex of what an annotation says, whatever the bytes of its files and the order of its clips."""
    clips = sorted((asdict(clip) for clip in annotation.clips), key=lambda clip: (clip["clip_id"], clip["path"]))
    return hashlib.sha256(json.dumps([clips, annotation.texts]).encode()).hexdigest()


def _annotation(card: Card, read: Reader, files: Files) -> Annotation:
    """What the reader makes of the files; UserError for files that are not as it expects, or say something else."""
    try:
        found = read(files)
    except (UserError, ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration) as e:
        if files.doubt:
            raise UserError(files.doubt) from None
        if isinstance(e, UserError):
            raise
        names = ", ".join(str(p) for some in files.values() for p in some[:1])
        raise UserError(
            f"{names} cannot be read as {card.name} ({type(e).__name__}: {e}); see {card.url or 'docs/datasets.md'}"
        ) from None
    if files.doubt and content(found) != card.content:
        raise UserError(files.doubt)
    return found
