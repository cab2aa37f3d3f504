"""Artifacts in an object store that machines share: a file system of pyarrow (s3, gs, abfss, hdfs, file), in IV_REMOTE.

    PREFIX/artifacts/KIND/KEY/SHA256/NAME   each file below its digest: two machines that send one key never mix
    PREFIX/artifacts/KIND/KEY/record.json   written last: an artifact that has one is whole

Secrets are found where the file system's own tools look for them (AWS_ACCESS_KEY_ID, ~/.aws, a machine's role), never
in the address, which is shown in logs and errors.
"""

import contextlib
import functools
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from ivcore.errors import UserError, WorkError
from ivcore.store.durable import mark, sync
from ivcore.store.soundness import RECORD, damaged

ADDRESS = "IV_REMOTE"
THREADS = 8  # files on their way at once
PIECE = 8 << 20  # bytes
SECRET = ("key", "secret", "token", "password")
EXAMPLE = "write s3://bucket/prefix or file:///folder"
# What an error of a file system says -> what to do about it.
CURES = {
    ("ACCESS_DENIED", "ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "FORBIDDEN", "CREDENTIALS"): (
        "no right to do that; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of one who may read and write there"
    ),
    ("NO_SUCH_BUCKET",): "there is no such bucket; make it first",
}
SILENCE = ("NETWORK_CONNECTION", "Could not connect", "REQUEST_TIMEOUT", "SERVICE_UNAVAILABLE", "SLOW_DOWN")


class Unreachable(WorkError):
    """The object store does not answer; later it may."""


def shown(address: str) -> str:
    """The address without user and options, as it may be shown; empty where there is none."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" if address else ""


@functools.cache
def connect(address: str) -> "Remote":
    """The object store at this address; one connection a process."""
    return Remote(address)


class Remote:
    """Finished artifacts by id (KIND/KEY)."""

    def __init__(self, address: str) -> None:
        """UserError when the address is none, holds a secret, or names a bucket that is not there."""
        from pyarrow import fs

        parts = urlsplit(address)
        options = [name for name, _ in parse_qsl(parts.query)]
        self.name = shown(address)
        owner = parts.password or (parts.scheme == "s3" and parts.username)
        if owner or any(word in option.lower() for option in options for word in SECRET):
            raise UserError(f"{ADDRESS} = {self.name} holds a secret; give it as AWS_SECRET_ACCESS_KEY or in ~/.aws")
        with self._told("opened"):
            try:
                self._fs, base = fs.FileSystem.from_uri(address)
            except ValueError as e:
                raise UserError(f"{ADDRESS} = {self.name}: {e}; {EXAMPLE}") from None
            self._local = self._fs.type_name == "local"
            self._base = base.rstrip("/")
            bucket = self._base.split("/")[0]
            if not self._local and self._fs.get_file_info(bucket).type == fs.FileType.NotFound:
                raise UserError(f"{ADDRESS} = {self.name}: there is no bucket {bucket}; make it first")

    def has(self, ids: Sequence[str]) -> list[bool]:
        """Which of these artifacts are there, whole."""
        from pyarrow import fs

        with self._told("asked"):
            found = self._fs.get_file_info([f"{self._place(id)}/{RECORD}" for id in ids]) if ids else []
        return [info.type == fs.FileType.File for info in found]

    def ids(self, kind: str) -> list[str]:
        """Ids of a kind, also of those that are not whole."""
        from pyarrow import fs

        with self._told("listed"):
            found = self._fs.get_file_info(fs.FileSelector(f"{self._base}/artifacts/{kind}", allow_not_found=True))
        return [f"{kind}/{name}" for name in sorted(info.base_name for info in found)]

    def records(self, ids: Sequence[str]) -> list[bytes | None]:
        """The record of each artifact as it is written there; None where there is none."""
        with self._told("read"):
            return _each(self._record, ids)

    def _record(self, id: str) -> bytes | None:
        try:
            with self._fs.open_input_stream(f"{self._place(id)}/{RECORD}") as f:
                data: bytes = f.read()
                return data
        except FileNotFoundError:
            return None

    def send(self, id: str, folder: Path) -> None:
        """Write the files of a finished artifact, then its record."""
        files: Mapping[str, str] = json.loads((folder / RECORD).read_text())["files"]
        with self._told("written"):
            _each(lambda name: self._put(folder / name, f"{self._place(id)}/{files[name]}/{name}", files[name]), files)
            self._put(folder / RECORD, f"{self._place(id)}/{RECORD}")

    def fetch(self, id: str, files: Mapping[str, str], folder: Path) -> None:
        """Write the files of an artifact (name -> sha256) into the folder.

        Raises:
            WorkError: one of them is missing or is not what the record says.
        """
        with self._told("read"):
            _each(lambda name: self._get(id, name, files[name], folder), files)

    def probe(self) -> None:
        """Write a small file and delete it; the error of that, if any."""
        from pyarrow import fs

        spot = f"{self._base}/.probe-{mark()}"
        with self._told("written"):
            if self._local:
                self._fs.create_dir(self._base)
            with self._fs.open_output_stream(spot) as f:
                f.write(b"ivflow")
            if self._fs.get_file_info(spot).type != fs.FileType.File:
                raise WorkError(f"{ADDRESS} = {self.name}: what was written there is not there")
            self._fs.delete_file(spot)

    def _place(self, id: str) -> str:
        return f"{self._base}/artifacts/{id}"

    def _put(self, source: Path, target: str, sha256: str | None = None) -> None:
        """Copy a file there; one of this digest unless it is there from a try that was cut off.

        Nothing is seen before it is whole.
        """
        if sha256 and self._fs.get_file_info(target).size == source.stat().st_size:
            return
        aside = f"{target}.{mark()}.tmp" if self._local else target
        if self._local:
            self._fs.create_dir(target.rpartition("/")[0])
        digest = hashlib.sha256()
        with source.open("rb") as f, self._fs.open_output_stream(aside) as out:
            while piece := f.read(PIECE):
                digest.update(piece)
                out.write(piece)
        if sha256 not in (None, digest.hexdigest()):
            self._fs.delete_file(aside)
            raise damaged(source, "is not as it was written")
        if self._local:
            sync(Path(aside))
            self._fs.move(aside, target)

    def _get(self, id: str, name: str, sha256: str, folder: Path) -> None:
        target = folder / name
        if not target.resolve().is_relative_to(folder.resolve()):
            raise WorkError(f"{self.name}: {id} names the file {name!r}, which leaves its folder; delete it there")
        target.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        try:
            with self._fs.open_input_stream(f"{self._place(id)}/{sha256}/{name}") as f, target.open("wb") as out:
                while piece := f.read(PIECE):
                    digest.update(piece)
                    out.write(piece)
        except FileNotFoundError:
            digest = hashlib.sha256(b"nothing")
        if digest.hexdigest() != sha256:
            raise WorkError(
                f"{self.name}: {name} of {id} is damaged or gone; delete artifacts/{id} there and run again, "
                "which sends or makes it anew"
            )

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Errors of an object store in a line; those of a disk have a number and go on as they are."""
        try:
            yield
        except OSError as e:
            if e.errno is not None:
                raise
            text = " ".join(str(e).split())
            if any(word in text for word in SILENCE):
                raise Unreachable(f"{ADDRESS} = {self.name} does not answer; run again when it does") from e
            cure = next((cure for words, cure in CURES.items() if any(w in text.upper() for w in words)), text[:300])
            raise WorkError(f"{ADDRESS} = {self.name} cannot be {what}: {cure}") from e


def _each(function: Callable[[str], Any], names: Iterable[str]) -> list[Any]:
    """The function of every name, several at once; after an error those that wait are given up."""
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(function, names))
