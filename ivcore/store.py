"""The artifact store: one finished step is one folder, artifacts/KIND/KEY, and if the folder is there the step is done.

The key is a hash of the recipe (kind, step version, config branch, input keys). A folder is written under a temporary
name, record.json last, synced and renamed, so nothing half-written is ever seen and a second writer of the same key
throws its own copy away.
"""

import contextlib
import hashlib
import json
import os
import resource
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import ivcore
from ivcore.errors import UserError, WorkError

RECORD = "record.json"
RECORD_SCHEMA = 1


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


@dataclass
class Draft:
    """A folder being written. `facts` are results; `measured` are timings, which live in the record alone.

    `superseded` are folders that go once the artifact is there: states of unfinished work.
    """

    path: Path
    rows_in: int = 0
    rows_ok: int = 0
    rows_failed: int = 0
    workers_cpu_s: float = 0.0  # of processes that are not its children, as forked by a server
    facts: dict[str, Any] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    superseded: list[Path] = field(default_factory=list)
    artifact: Artifact | None = None

    def count(self, ok: int, failed: int = 0) -> None:
        """State what became of the rows that came in: in = ok + failed."""
        self.rows_in, self.rows_ok, self.rows_failed = ok + failed, ok, failed


def key(kind: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """The key of a recipe: 24 hex digits of the sha256 of its canonical JSON."""
    recipe = {"kind": kind, "version": version, "config": config, "inputs": inputs}
    text = json.dumps(recipe, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in pieces."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


class Store:
    """A workspace's artifacts."""

    def __init__(self, home: Path, context: Mapping[str, str | None] | None = None) -> None:
        """`context` (who runs this: mlflow_run_id, prefect_run_id) is written into every record."""
        self.home = Path(home).absolute()
        self.context = dict(context or {})

    def path(self, kind: str, key: str) -> Path:
        """Where the artifact is or would be."""
        return self.home / "artifacts" / kind / key

    def find(self, kind: str, key: str) -> Artifact | None:
        """The finished artifact, or None."""
        path = self.path(kind, key)
        try:
            record = json.loads((path / RECORD).read_text())
        except FileNotFoundError:
            return None
        except json.JSONDecodeError:
            raise WorkError(f"{path / RECORD} is damaged; delete {path} and run again") from None
        if record["schema"] != RECORD_SCHEMA:
            raise UserError(f"{path / RECORD} has schema {record['schema']}, this version reads {RECORD_SCHEMA}")
        return Artifact(kind, key, path, record["rows_ok"])

    def get(self, id: str) -> Artifact:
        """The artifact named `KIND/KEY`; WorkError when it is gone."""
        kind, _, key = id.partition("/")
        found = self.find(kind, key)
        if found is None:
            raise WorkError(f"artifact {id} is not in {self.home}; run the step that makes it")
        return found

    def all(self, kind: str = "*") -> Iterator[Artifact]:
        """Every finished artifact (of a kind), by kind and key."""
        for path in sorted((self.home / "artifacts").glob(f"{kind}/*/{RECORD}")):
            found = self.find(path.parent.parent.name, path.parent.name)
            if found is not None:
                yield found

    @contextlib.contextmanager
    def write(
        self, kind: str, key: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]
    ) -> Iterator[Draft]:
        """Write the artifact of this recipe; on leaving, `draft.artifact` is the finished one (ours or another's)."""
        final = self.path(kind, key)
        final.parent.mkdir(parents=True, exist_ok=True)
        _sweep(final)
        draft = Draft(final.with_name(f".{key}.{socket.gethostname()}.{os.getpid()}.tmp"))
        draft.path.mkdir()
        start, cpu = time.monotonic(), _cpu_s()
        try:
            yield draft
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
                "files": {
                    p.relative_to(draft.path).as_posix(): sha256_file(p)
                    for p in sorted(draft.path.rglob("*"))
                    if p.is_file()
                },
                "facts": draft.facts,
                "measured": draft.measured,
                "code_version": ivcore.__version__,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
                "wall_s": round(time.monotonic() - start, 3),
                "cpu_s": round(_cpu_s() - cpu + draft.workers_cpu_s, 3),
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                **{"mlflow_run_id": None, "prefect_run_id": None, **self.context},
            }
            (draft.path / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True))
            _sync(draft.path)
            try:
                draft.path.rename(final)
                _sync_folder(final.parent)
            except OSError:  # another process finished the same key first: its copy stays
                if not (final / RECORD).is_file():
                    raise
            draft.artifact = Artifact(kind, key, final, draft.rows_ok)
            for folder in draft.superseded:
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            shutil.rmtree(draft.path, ignore_errors=True)


def _cpu_s() -> float:
    """CPU seconds of this process and its finished children."""
    me, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return me.ru_utime + me.ru_stime + children.ru_utime + children.ru_stime


def _sweep(final: Path) -> None:
    """Remove what dead processes of this machine left of the same key."""
    for left in final.parent.glob(f".{final.name}.{socket.gethostname()}.*.tmp"):
        pid = left.name.split(".")[-2]
        if pid.isdigit() and (int(pid) == os.getpid() or not Path(f"/proc/{pid}").exists()):
            shutil.rmtree(left, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Flush every file of a folder, then the folders, to disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            _sync_folder(path)
        else:
            with path.open("rb") as f:
                os.fsync(f.fileno())
    _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
