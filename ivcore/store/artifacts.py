"""The artifact store: one finished step is one folder, artifacts/KIND/KEY, and if the folder is there the step is done.

The key is a hash of the recipe (kind, step version, config branch, input keys). A folder is written under a temporary
name, record.json last, synced and renamed, so nothing half-written is ever seen and a second writer of the same key
throws its own copy away.

With IV_REMOTE set, machines share artifacts through an object store: what is finished here is sent there, after all
that it stands on, and what is there and not here is fetched when it is asked for.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import resource
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ivcore
from ivcore.errors import UserError, WorkError
from ivcore.store import object_store, soundness
from ivcore.store.durable import aside, put_folder
from ivcore.store.known_files import sha256_file
from ivcore.store.peak import Peak
from ivcore.store.soundness import RECORD

RECORD_SCHEMA = 1
INDEX = "index.parquet"  # of frames, and of a shard
NAME = re.compile(r"[A-Za-z0-9_-]+")  # of a kind, and of a key
TOUCH_S = 3600.0  # what is found is marked as in use, at most so often
AT_ONCE = 256  # records read from the object store before the first is looked at
log, said = logging.getLogger("iv.remote"), logging.getLogger("iv")
_fetching = threading.Lock()


class Broken(WorkError):
    """A record that is not as it was written."""


@dataclass(frozen=True)
class Artifact:
    """A reference to a finished step: a few hundred bytes that tasks hand on instead of data."""

    kind: str
    key: str
    path: Path
    rows: int

    @property
    def id(self) -> str:
        """`KIND/KEY`, as inputs are named in records and tags."""
        return f"{self.kind}/{self.key}"

    def record(self) -> dict[str, Any]:
        """The whole record.json."""
        record: dict[str, Any] = json.loads((self.path / RECORD).read_text())
        return record

    def stands_on(self) -> list[str]:
        """Ids of what it was made from, and of the other shards that its index names."""
        return [*self.record()["inputs"].values(), *self.shards()]

    def shards(self) -> list[str]:
        """Ids of the other shards that its index names."""
        index = self.path / INDEX
        if not index.is_file():
            return []
        import pyarrow.parquet as pq

        soundness.check(index)
        if "shard" not in pq.read_schema(index).names:
            return []
        named = pq.read_table(index, columns=["shard"]).column(0).unique().to_pylist()
        return [shard for shard in named if shard not in (None, self.id)]


@dataclass
class Draft:
    """A folder being written. `facts` are results; `measured` are timings, which live in the record alone.

    `superseded` are folders that go once the artifact is there: states of unfinished work.
    """

    path: Path
    rows_in: int = 0
    rows_ok: int = 0
    rows_failed: int = 0
    workers_cpu_s: float = 0.0  # of processes that are not its children: forked by a server, or the ones gone on from
    facts: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    superseded: list[Path] = field(default_factory=list)
    artifact: Artifact | None = None

    def count(self, ok: int, failed: int = 0, left_out: int = 0) -> None:
        """State what became of the rows that came in: in = ok + failed + left_out, which is no fault."""
        self.rows_in, self.rows_ok, self.rows_failed = ok + failed + left_out, ok, failed


def key(kind: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The key of a recipe: 24 hex digits of the sha256 of its canonical JSON."""
    recipe = {"kind": kind, "version": version, "config": config, "inputs": inputs}
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Store:
    """A workspace's artifacts."""

    def __init__(self, home: Path, context: Mapping[str, str | None] | None = None) -> None:
        """`context` (who runs this: mlflow_run_id, prefect_run_id) is written into every record."""
        self.home = Path(home).absolute()
        self.context = dict(context or {})

    def path(self, kind: str, key: str) -> Path:
        """Where the artifact is or would be; WorkError for a name that could lead out of the workspace."""
        if not (NAME.fullmatch(kind) and NAME.fullmatch(key)):
            raise WorkError(f"{f'{kind}/{key}'!r} is no artifact; one is named KIND/KEY, in letters, digits, - and _")
        return self.home / "artifacts" / kind / key

    @property
    def remote(self) -> object_store.Remote | None:
        """The object store of IV_REMOTE."""
        address = os.environ.get(object_store.ADDRESS)
        return object_store.connect(address) if address else None

    def find(self, kind: str, key: str) -> Artifact | None:
        """The finished artifact, fetched if it is not here; None where there is none, or its record is damaged.

        It counts as in use from now on: `iv gc` takes it for young, and keeps what it stands on.
        """
        found = self._here(kind, key) or self._fetch(kind, key)
        with contextlib.suppress(OSError):  # a workspace that may only be read
            if found and time.time() - (found.path / RECORD).stat().st_mtime > TOUCH_S:
                os.utime(found.path / RECORD)
        return found

    def _here(self, kind: str, key: str) -> Artifact | None:
        path = self.path(kind, key)
        try:
            return Artifact(kind, key, path, _parsed((path / RECORD).read_bytes(), path)["rows_ok"])
        except FileNotFoundError:
            pass
        except Broken:
            said.warning("%s", soundness.damaged(path / RECORD, "is not as it was written"))
        return None

    def complete(self, kind: str, key: str) -> Artifact | None:
        """As `find`; one whose index names a shard that is gone (damaged, and set aside) is set aside too."""
        found = self.find(kind, key)
        for id in found.shards() if found else ():
            if not (self.path(*id.split("/")) / RECORD).is_file() and self.find(*id.split("/")) is None:
                said.warning("%s", soundness.damaged(self.path(kind, key) / INDEX, f"names {id}, which is gone"))
                return None
        return found

    def get(self, id: str) -> Artifact:
        """The artifact named `KIND/KEY`; WorkError when it is gone."""
        kind, _, key = id.partition("/")
        found = self.find(kind, key)
        if found is None:
            there = f" nor in {self.remote.name}" if self.remote else ""
            raise WorkError(f"artifact {id} is not in {self.home}{there}; run the step that makes it")
        return found

    def all(self, kind: str = "*") -> Iterator[Artifact]:
        """Every finished artifact (of a kind) that is here, by kind and key."""
        # Not of what is being written, or what a killed process left: its name begins with a point.
        for path in sorted((self.home / "artifacts").glob(f"{kind}/[!.]*/{RECORD}")):
            found = self._here(path.parent.parent.name, path.parent.name)
            if found is not None:
                yield found

    def records(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Id and record of every finished artifact of a kind, here and then those that are only in the object store."""
        here = set()
        for artifact in self.all(kind):
            here.add(artifact.id)
            yield artifact.id, artifact.record()
        if self.remote:
            ids = [id for id in self.remote.ids(kind) if id not in here]
            for part in (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE)):
                for id, text in zip(part, self.remote.records(part)):
                    if text is not None:
                        yield id, _parsed(text, f"{self.remote.name}/artifacts/{id}")

    def share(self, artifact: Artifact) -> None:
        """Send it to the object store, if there is one and it is not there, after what it stands on."""
        if self.remote is None or self.remote.has([artifact.id])[0]:
            return
        below = artifact.stands_on()
        for id, there in zip(below, self.remote.has(below)):
            if not there and (self.path(*id.split("/")) / RECORD).is_file():  # what is gone here stays gone there
                self.share(self.get(id))
        self.remote.send(artifact.id, artifact.path)
        log.info("%s sent to %s", artifact.id, self.remote.name)

    def _fetch(self, kind: str, key: str) -> Artifact | None:
        """The artifact from the object store, whole and checked; None where there is none."""
        if self.remote is None:
            return None
        id, final = f"{kind}/{key}", self.path(kind, key)
        (text,) = self.remote.records([id])
        if text is None:
            return None
        record = _parsed(text, f"{self.remote.name}/artifacts/{id}")
        if (record["kind"], _key_of(record)) != (kind, key):
            raise WorkError(
                f"{self.remote.name}/artifacts/{id} holds the record of {record['kind']}/{_key_of(record)}; "
                f"delete artifacts/{id} there and run again"
            )
        with _fetching:
            if not (final / RECORD).is_file():  # another thread may have been quicker
                with _beside(final) as folder:
                    self.remote.fetch(id, record["files"], folder)
                    (folder / RECORD).write_bytes(text)
                    _publish(folder, final)
                log.info("%s fetched from %s", id, self.remote.name)
        return Artifact(kind, key, final, record["rows_ok"])

    @contextlib.contextmanager
    def write(
        self, kind: str, key: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]
    ) -> Iterator[Draft]:
        """Write the artifact of this recipe; on leaving, `draft.artifact` is the finished one (ours or another's)."""
        final = self.path(kind, key)
        start, cpu, peak = time.monotonic(), _cpu_s(), Peak()
        with _beside(final) as folder:
            draft = Draft(folder)
            yield draft
            files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
            record = {
                "schema": RECORD_SCHEMA,
                "kind": kind,
                "key": key,
                "version": version,
                "config": dict(config),
                "inputs": dict(inputs),
                "rows_in": draft.rows_in,
                "rows_ok": draft.rows_ok,
                "rows_failed": draft.rows_failed,
                "files": {name: sha256_file(p) for name, p in files.items()},
                "footers": {name: soundness.footer_sha256(p) for name, p in files.items() if p.name in soundness.BULK},
                "facts": draft.facts,
                "measured": draft.measured,
                "code_version": ivcore.__version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "wall_s": round(time.monotonic() - start, 3),
                "cpu_s": round(_cpu_s() - cpu + draft.workers_cpu_s, 3),
                "peak_rss_mb": peak.bytes() >> 20,
                **{"mlflow_run_id": None, "prefect_run_id": None, **self.context},
            }
            (draft.path / RECORD).write_text(json.dumps(soundness.sealed(record), indent=1, sort_keys=True))
            _publish(draft.path, final)
            draft.artifact = Artifact(kind, key, final, draft.rows_ok)
            for left in draft.superseded:
                shutil.rmtree(left, ignore_errors=True)
        self.share(draft.artifact)


def _parsed(text: bytes, where: Path | str) -> dict[str, Any]:
    """A record that can be read and is of this schema."""
    try:
        record: dict[str, Any] = json.loads(text)
        whole = soundness.unbroken(record) and "schema" in record
    except (ValueError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise Broken(f"{where}/{RECORD} is damaged; delete {where} and run again")
    if record["schema"] != RECORD_SCHEMA:
        raise UserError(f"{where}/{RECORD} has schema {record['schema']}, this version reads {RECORD_SCHEMA}")
    return record


def _key_of(record: Mapping[str, Any]) -> str:
    """The key that this recipe has, whatever the record says of itself."""
    return key(record["kind"], record["version"], record["config"], record["inputs"])


def _beside(final: Path) -> contextlib.AbstractContextManager[Path]:
    """A folder to write into, where a later process finds what a killed one left."""
    final.parent.mkdir(parents=True, exist_ok=True)
    return aside(final)


def _publish(folder: Path, final: Path) -> None:
    """Give a finished folder its place; where another process was quicker, its copy stays."""
    try:
        put_folder(folder, final)
    except OSError:
        if not (final / RECORD).is_file():
            raise


def _cpu_s() -> float:
    """CPU seconds of this process and its finished children."""
    me, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return me.ru_utime + me.ru_stime + children.ru_utime + children.ru_stime
