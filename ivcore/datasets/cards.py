"""What a published data set says of itself, and whether the annotation files at hand are the ones that it means.

Files are checked against the card before a line of them is read: a wrong split is refused and never scored.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ivcore.config import DataConfig
from ivcore.datasets import csv_files
from ivcore.errors import UserError
from ivcore.store.known_files import sha256_file

UNVERIFIED = "unverified"  # no checksum: we have not had the file in hand
SEE_PAGE = "see the data set's page"
log = logging.getLogger("iv.datasets")


@dataclass(frozen=True, kw_only=True)
class Card:
    """The facts of a data set; None where there is no fixed one."""

    name: str
    task: Literal["retrieval", "multiple_choice", "classification"] = "retrieval"
    split: str  # as its papers call it; what is read always becomes the split `test`
    files: Mapping[str, str] = field(default_factory=dict)  # annotation file (may hold a *) -> sha256 or UNVERIFIED
    content: str = ""  # sha256 of what the files say (published.content): other line ends or separators pass by it
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

    def facts(self) -> dict[str, Any]:
        """The card as plain JSON values."""
        return {**asdict(self), "files": dict(self.files), "languages": list(self.languages), "checksum": self.checksum}


class Files(dict[str, list[Path]]):
    """Annotation files by their name in the card; a name with a * stands for several. All are UTF-8.

    `doubt`: why their bytes are not those of the card, "" when they are; then what they say has to be the same.
    """

    doubt = ""

    def text(self, name: str) -> str:
        """The file's text, with the line ends of Unix."""
        return self[name][0].read_text(encoding="utf-8-sig")

    def json(self, name: str) -> Any:
        """The file's value."""
        return json.loads(self.text(name))

    def csv(self, name: str) -> list[dict[str, str]]:
        """The file's rows, by the names of its first line."""
        rows: list[dict[str, str]] = csv_files.read(self[name][0], strict=False)
        return rows


def checked(name: str, card: Card, data: DataConfig) -> Files:
    """The annotation files, by their name in the card.

    Raises:
        UserError: none given, one is not there, or none of us has checked it. Other bytes are told by `doubt`.
    """
    wanted = " and ".join(card.files) or "an annotation file"
    if data.annotations is None:
        raise UserError(f"data.annotations is not set; {name} needs {wanted}{card.url and f', see {card.url}'}")
    given = Path(data.annotations).expanduser()
    if not given.exists():
        raise UserError(f"data.annotations = {data.annotations!r} does not exist; {name} needs {wanted}")
    if not card.files:
        return Files({given.name: [given]})
    if card.checksum == UNVERIFIED and not data.allow_unverified:
        unverified = [n for n, sha in card.files.items() if sha == UNVERIFIED]
        raise UserError(
            f"{name}: the checksum of {', '.join(unverified)} is unverified, so a wrong split would not be noticed; "
            "look at it yourself, then say --allow-unverified (data.allow_unverified = true)"
        )
    out = Files()
    for file, digest in card.files.items():
        alone = given.is_file() and len(card.files) == 1 and "*" not in file
        place = given if given.is_dir() else given.parent
        found = [given] if alone else sorted(p for p in place.glob(file) if p.is_file())
        if not found:
            raise UserError(f"{place} holds no {file}; {name} needs {wanted}, see {card.url}")
        if digest != UNVERIFIED and (sha := sha256_file(found[0])) != digest:
            out.doubt = out.doubt or (
                f"{found[0]} has sha256 {sha}, but {file} of {name} ({card.split}) has {digest}: it is another split "
                "or version; give that file, or read this one with data.dataset = upstream or folder"
            )
        out[file] = found
    return out


def counted(name: str, card: Card, num_videos: int, num_captions: int) -> None:
    """Compare with the card: UserError where its checksum is known, else a warning, since the card is the guess."""
    counts = (("videos", card.num_videos, num_videos), ("captions", card.num_captions, num_captions))
    for what, claimed, found in counts:
        if claimed is None or claimed == found:
            continue
        told = f"{name}: the card says {claimed} {what}, the annotation has {found}"
        if card.checksum == "sha256":
            raise UserError(f"{told}; the card or its reader is wrong, please report it")
        log.warning("%s; make sure that this is the split you mean", told)
