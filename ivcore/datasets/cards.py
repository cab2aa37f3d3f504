"""What a published data set says of itself, and how its annotation becomes clips and captions.

A file of ivcore/datasets/sets states a CARD and how its annotation files are read; everything else is here: files are
checked against the card before a line of them is read, so that a wrong split is refused and never scored.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ivcore import names
from ivcore.config import DataConfig
from ivcore.datasets import files as locate
from ivcore.errors import UserError
from ivcore.store.artifacts import Store, sha256_file

UNVERIFIED = "unverified"  # no checksum: we have not had the file in hand
SEE_PAGE = "see the data set's page"
said = logging.getLogger("iv.datasets")

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Card:
    """The facts of a data set; None where there is no fixed one."""

    name: str
    task: Literal["retrieval", "multiple_choice", "classification"] = "retrieval"
    split: str  # as its papers call it; what is read always becomes the split `test`
    files: Mapping[str, str] = field(default_factory=dict)  # annotation file (may hold a *) -> sha256 or UNVERIFIED
    num_videos: int | None = None  # clips scored
    num_captions: int | None = None  # queries, classes or options
    caption_rule: str  # each: every caption is a query; paragraph: joined; class: names of classes; option: choices
    text_len: int | None = None  # tokens that s2 reads in scoring; clip always reads its own number
    frames: int | None = None  # a clip, in the published scores of s2-1B (clip: 8 everywhere)
    languages: tuple[str, ...] = ("en",)
    main_score: str = "t2v R@1"
    licence: str
    citation: str
    url: str = ""
    notes: str = ""

    @property
    def checksum(self) -> str:
        """sha256: every file is known; unverified: one is not; none: there are no files."""
        if not self.files:
            return "none"
        return UNVERIFIED if UNVERIFIED in self.files.values() else "sha256"

    @property
    def text_class(self) -> str:
        """Of all captions alike, since a protocol scores them together."""
        return "long" if self.caption_rule == "paragraph" else "short"

    def facts(self) -> Row:
        """The card as plain JSON values."""
        return {**asdict(self), "files": dict(self.files), "languages": list(self.languages), "checksum": self.checksum}


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
    family: str = ""  # else the clip_id


@dataclass(frozen=True)
class Annotation:
    """Clips, and the texts that no single clip owns: classes, options of all, captions of several videos."""

    clips: list[Clip]
    texts: list[str] = field(default_factory=list)


Files = Mapping[str, list[Path]]  # by the name in the card
Reader = Callable[[Files, DataConfig], Annotation]


def published(
    module: str, card: Card, read: Reader
) -> tuple[
    Callable[[Store, DataConfig], Row],
    Callable[[Store, DataConfig], Path],
    Callable[[DataConfig, Path], tuple[list, list]],
]:
    """`recipe`, `root` and `rows` of a data set that is a card and a reader; `module` is its __name__."""
    name = module.rpartition(".")[2]

    def recipe(store: Store, data: DataConfig) -> Row:
        """Digests of the annotation and of the bytes of every video that is there."""
        files, top = checked(name, card, data), locate.root_folder(data)
        paths = [locate.on_disk(top, clip.path, card.name) for clip in _parsed(card, read, files, data).clips]
        digests = {p.name: sha256_file(p) for some in files.values() for p in some}
        read_as = {"caption_rule": data.caption_rule, "language": data.language} if not card.files else {}
        return {"dataset": name, "annotations_sha256": digests, **read_as, **locate.digests(store, top, paths)}

    def root(store: Store, data: DataConfig) -> Path:
        """data.root, resolved; UserError when it is not a folder."""
        return locate.root_folder(data)

    def rows(data: DataConfig, root: Path) -> tuple[list[Row], list[Row]]:
        """Clips and captions; a caption's `pairs` name further clips, and whether it is true of them."""
        files = checked(name, card, data)
        clips, captions = table(card, _parsed(card, read, files, data), data)
        counted(name, card, len(clips), len(captions))
        return [{**clip, "path": locate.on_disk(root, clip["path"], card.name)} for clip in clips], captions

    return recipe, root, rows


def checked(name: str, card: Card, data: DataConfig) -> dict[str, list[Path]]:
    """The annotation files, by their name in the card.

    Raises:
        UserError: none given, one is not there, one is not the file of the card, or none of us has checked it.
    """
    wanted = " and ".join(card.files) or "an annotation file"
    if data.annotations is None:
        raise UserError(f"data.annotations is not set; {name} needs {wanted}{card.url and f', see {card.url}'}")
    given = Path(data.annotations).expanduser()
    if not given.exists():
        raise UserError(f"data.annotations = {data.annotations!r} does not exist; {name} needs {wanted}")
    if not card.files:
        return {given.name: [given]}
    if card.checksum == UNVERIFIED and not data.allow_unverified:
        open_ = [n for n, sha in card.files.items() if sha == UNVERIFIED]
        raise UserError(
            f"{name}: the checksum of {', '.join(open_)} is unverified, so a wrong split would not be noticed; "
            "look at it yourself, then say --allow-unverified (data.allow_unverified = true)"
        )
    out: dict[str, list[Path]] = {}
    for file, digest in card.files.items():
        alone = given.is_file() and len(card.files) == 1 and "*" not in file
        place = given if given.is_dir() else given.parent
        found = [given] if alone else sorted(p for p in place.glob(file) if p.is_file())
        if not found:
            raise UserError(f"{place} holds no {file}; {name} needs {wanted}, see {card.url}")
        if digest != UNVERIFIED and (sha := sha256_file(found[0])) != digest:
            raise UserError(
                f"{found[0]} has sha256 {sha}, but {file} of {name} ({card.split}) has {digest}: it is another split "
                "or version; give that file, or read this one with data.dataset = upstream or folder"
            )
        out[file] = found
    return out


def counted(name: str, card: Card, num_videos: int, num_captions: int) -> None:
    """Compare with the card: UserError where its checksum is known, else a warning, since the card is the guess."""
    for what, claimed, found in (
        ("videos", card.num_videos, num_videos),
        ("captions", card.num_captions, num_captions),
    ):
        if claimed is None or claimed == found:
            continue
        told = f"{name}: the card says {claimed} {what}, the annotation has {found}"
        if card.checksum == "sha256":
            raise UserError(f"{told}; the card or its reader is wrong, please report it")
        said.warning("%s; make sure that this is the split you mean", told)


def _parsed(card: Card, read: Reader, files: Files, data: DataConfig) -> Annotation:
    """What the reader makes of the files; UserError for files that are not as it expects."""
    try:
        return read(files, data)
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, StopIteration) as e:
        names = ", ".join(str(p) for some in files.values() for p in some[:1])
        raise UserError(
            f"{names} cannot be read as {card.name} ({type(e).__name__}: {e}); see {card.url or 'docs/datasets.md'}"
        ) from None


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
    kind = {"language": language, "text_class": card.text_class}

    def caption(id: str, clip_id: str, text: str, pairs: list[tuple[str, bool]]) -> Row:
        return {"caption_id": id, "clip_id": clip_id, **kind, "caption": text, **({"pairs": pairs} if pairs else {})}

    shared: list[list[tuple[str, bool]]] = [[] for _ in annotation.texts]
    for clip in annotation.clips:
        clip_id = clip.clip_id or str(Path(clip.path).with_suffix(""))
        if clip_id in clips:
            raise UserError(f"clip {clip_id!r} stands twice in the annotation of {card.name}")
        spot = {"path": clip.path, "split": "test", "start_s": clip.start_s, "end_s": clip.end_s}
        clips[clip_id] = {"clip_id": clip_id, **spot, "family": clip.family or clip_id}
        texts = (" ".join(clip.captions),) if card.caption_rule == "paragraph" and clip.captions else clip.captions
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


def found(name: str, annotations: str, allow_unverified: bool = False) -> dict[str, int]:
    """Counts of videos and captions in annotation files that pass the card of data set `name`; no video is needed.

    Raises:
        UserError: as `checked` and `counted` do.
    """
    dataset = names.module("ivcore.datasets.sets", name)
    if not hasattr(dataset, "read"):
        raise UserError(f"data set {name!r} has no annotation of its own to check")
    data = DataConfig(dataset=name, annotations=annotations, allow_unverified=allow_unverified)
    files = checked(name, dataset.CARD, data)
    clips, captions = table(dataset.CARD, _parsed(dataset.CARD, dataset.read, files, data), data)
    counted(name, dataset.CARD, len(clips), len(captions))
    return {"videos": len(clips), "captions": len(captions)}
