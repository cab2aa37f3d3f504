"""The catalog: catalog.duckdb, views over the Parquet files and tables made from records and the newest report.

It holds nothing of its own. It is built aside and renamed, so whoever reads the old one reads on; delete it at will.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from ivcore.errors import UserError, WorkError
from ivcore.store import schemas, soundness
from ivcore.store.artifacts import Store
from ivcore.store.durable import written
from ivcore.store.soundness import RECORD

FILE = "catalog.duckdb"
NEWEST = "manifest"  # the view of the newest manifest alone
# Table name in a Parquet file -> view. Shards are left out: a view over thousands of binary files helps nobody.
VIEWS = {
    "manifest": "manifests",
    "captions": "captions",
    "pairs": "pairs",
    "index": "frames",
    "scores": "scores",
    "curves": "curves",
    "cells": "cells",
    "features": "features",
}
EMPTY = (
    schemas.MANIFEST,
    schemas.CAPTIONS,
    schemas.PAIRS,
    schemas.FRAMES,
    schemas.SCORES,
    schemas.CURVES,
    schemas.CELLS,
)
REPORT_TABLES = ("stages", "rows", "paired")
# What people ask first; shown by `iv sql` and in docs/data.md.
QUESTIONS = {
    "Which videos failed, and why": """\
SELECT path, error, detail FROM (
  SELECT DISTINCT m.clip_id, m.path, coalesce(f.error, m.error) AS error, coalesce(f.detail, m.detail) AS detail
  FROM manifest m
  LEFT JOIN records r ON r.kind = 'frames' AND r.inputs->>'manifest' = 'manifest/' || m.key
  LEFT JOIN frames f ON f.key = r.key AND f.clip_id = m.clip_id)
WHERE error NOT IN ('duplicate', 'overlap')
ORDER BY ALL""",
    "R@1 by language and head, mean of the seeds": """\
SELECT arm, language, text_class, model, head,
  round(avg(r1) FILTER (direction = 't2v'), 1) AS t2v, round(avg(r1) FILTER (direction = 'v2t'), 1) AS v2t
FROM rows GROUP BY ALL ORDER BY arm, language, text_class, t2v DESC""",
    "Seconds of each stage": """\
SELECT step, label, arm, seed, cached, rows_ok, wall_s, cpu_s FROM stages""",
}
TABLES = """\
SELECT table_name AS "table", string_agg(column_name, ', ' ORDER BY ordinal_position) AS columns
FROM information_schema.columns GROUP BY 1 ORDER BY 1"""
OFFLINE: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
}
READS = ("SELECT", "EXPLAIN")
MEMORY = "2GB"


def build(home: Path) -> Path:
    """Build the catalog anew; returns its path."""
    final = Path(home).absolute() / FILE
    with written(final) as aside:
        try:
            with duckdb.connect(str(aside), config=OFFLINE) as db:
                _records(db, Store(home))
                for view, files in sorted(_files(home).items()):
                    _view(db, view, files)
                    if view == VIEWS[NEWEST]:
                        _view(db, NEWEST, files[-1:])
                _missing(db)
                _report(db, Path(home) / "reports" / "latest" / "report.json")
        finally:
            Path(f"{aside}.wal").unlink(missing_ok=True)
    return final


def query(home: Path, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
    """Column names and rows of one SELECT (or EXPLAIN) over the workspace, which it can read and nothing else.

    Raises:
        UserError: when the statement is another one, or DuckDB does not understand or allow it.
    """
    home = Path(home).absolute()
    if not (home / "artifacts").is_dir():
        raise UserError(f"{home} is no workspace: it has no artifacts; give --home, or run `iv demo` first")
    file = home / FILE
    try:
        file = build(home)
    except (OSError, duckdb.IOException) as e:
        if not file.is_file():  # an older catalog still answers in a workspace that may only be read
            raise WorkError(f"cannot write {file}: {e}") from None
    with duckdb.connect(str(file), read_only=True, config=OFFLINE) as db:
        folders = [str(home / name) + "/" for name in ("artifacts", "reports")]
        db.execute(f"set memory_limit='{MEMORY}'; set threads=2; set temp_directory=''")
        db.execute(f"set allowed_directories={_literal(folders)}")
        db.execute("set enable_external_access=false")
        db.execute("set lock_configuration=true")
        try:
            _only_reads(db, sql)
            result = db.execute(sql)
            return [column[0] for column in result.description], result.fetchall()
        except duckdb.CatalogException as e:
            raise UserError(f"sql: {str(e).splitlines()[0]} `iv sql` alone lists what there is") from None
        except duckdb.Error as e:
            raise UserError(f"sql: {str(e).splitlines()[0]}") from None


def _only_reads(db: duckdb.DuckDBPyConnection, sql: str) -> None:
    """Refuse what writes: the settings keep a query off other files, but not from COPY into an allowed folder."""
    statements = db.extract_statements(sql)
    if len(statements) != 1:
        raise UserError(f"sql: {len(statements)} statements; give one SELECT")
    kind = statements[0].type.name
    if kind not in READS:
        raise UserError(f"sql: {kind} is not allowed; give a SELECT or EXPLAIN")
    if kind == "EXPLAIN":  # EXPLAIN ANALYZE runs what it explains
        inner = sql.strip().split(None, 1)[1]
        if inner.lower().startswith("analyze"):
            inner = inner[len("analyze") :]
        if any(s.type.name != "SELECT" for s in db.extract_statements(inner)):
            raise UserError("sql: only a SELECT can be explained")


def _records(db: duckdb.DuckDBPyConnection, store: Store) -> None:
    """One row an artifact: the record's plain values, its tables as JSON."""
    rows = [{**a.record(), "path": str(a.path), "rows": a.rows} for a in store.all()]
    nested = ("config", "inputs", "facts", "measured", "files")
    plain = ("created", "code_version", "mlflow_run_id", "prefect_run_id", "path")
    numbers = ("version", "rows", "rows_in", "rows_ok", "rows_failed", "wall_s", "cpu_s", "peak_rss_mb")
    columns = {
        **{name: pa.array([r.get(name) for r in rows], pa.string()) for name in ("kind", "key")},
        **{name: pa.array([r.get(name) for r in rows], pa.float64()).cast(_whole(name)) for name in numbers},
        **{name: pa.array([r.get(name) for r in rows], pa.string()) for name in plain},
        **{name: pa.array([json.dumps(r.get(name), sort_keys=True) for r in rows], pa.string()) for name in nested},
    }
    _table(db, "records", pa.table(columns), nested)


def _whole(name: str) -> pa.DataType:
    return pa.float64() if name in ("wall_s", "cpu_s") else pa.int64()


def _files(home: Path) -> dict[str, list[str]]:
    """View -> its Parquet files, the newest last; the view is told by the table name that travels inside each file."""
    found: dict[str, list[str]] = defaultdict(list)
    made = {a: (a.record()["created"], (a.path / RECORD).stat().st_mtime_ns) for a in Store(home).all()}
    for artifact in sorted(made, key=made.__getitem__):
        if artifact.kind == "frame_shard":
            continue
        for path in sorted(artifact.path.rglob("*.parquet")):
            soundness.check(path)
            meta = pq.read_schema(path).metadata or {}
            view = VIEWS.get(meta.get(b"iv.table", b"").decode())
            if view:
                found[view].append(str(path))
    return found


def _view(db: duckdb.DuckDBPyConnection, name: str, files: list[str]) -> None:
    """A view over files; `key` says which artifact a row is from. Without union_by_name the first file's types rule."""
    key = "regexp_extract(filename, '/artifacts/[^/]+/([0-9a-f]+)/', 1)"
    source = f"read_parquet({_literal(files)}, union_by_name=true, filename=true)"
    there = {column for file in files for column in pq.read_schema(file).names}
    known = next((t.columns for t in EMPTY if name in (t.name, VIEWS[t.name])), ())
    lacks = "".join(f', null as "{c.name}"' for c in known if c.name not in there)  # files of an earlier version
    db.execute(f'create view "{name}" as select {key} as key, * exclude (filename){lacks} from {source}')


def _missing(db: duckdb.DuckDBPyConnection) -> None:
    """Empty tables for the steps that have not run, so that a question about them has an answer: nothing."""
    there = {name for (name,) in db.execute("select table_name from information_schema.tables").fetchall()}
    for table in EMPTY:
        schema = pa.schema([pa.field("key", pa.string()), *table.schema()])
        for view in {VIEWS[table.name], *({NEWEST} & {table.name})} - there:
            _table(db, view, schema.empty_table(), ())


def _report(db: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Tables of the newest report, where there is one."""
    if not path.is_file():
        return
    report = json.loads(path.read_text())
    for name in REPORT_TABLES:
        rows = report.get(name) or []
        columns = list(dict.fromkeys(column for row in rows for column in row))
        if columns:
            nested = [c for c in columns if any(isinstance(r.get(c), (dict, list)) for r in rows)]
            _table(db, name, pa.table({c: _column([r.get(c) for r in rows], c in nested) for c in columns}), nested)


def _column(values: list[Any], nested: bool) -> pa.Array:
    """Values as one column; JSON text where they are nested, text where they are of several kinds."""
    if nested:
        return pa.array([None if v is None else json.dumps(v) for v in values], pa.string())
    kinds = {float if isinstance(v, (int, float)) and not isinstance(v, bool) else type(v) for v in values} - {
        type(None)
    }
    if len(kinds) > 1:
        return pa.array([None if v is None else str(v) for v in values], pa.string())
    return pa.array(values, None if kinds else pa.string())


def _table(db: duckdb.DuckDBPyConnection, name: str, table: pa.Table, nested: Iterable[str]) -> None:
    casts = ", ".join(f'"{c}"::json as "{c}"' for c in nested)
    db.register("given", table)
    db.execute(f'create table "{name}" as select * {f"replace ({casts})" if casts else ""} from given')
    db.unregister("given")


def _literal(texts: Iterable[str]) -> str:
    """A SQL list of strings."""
    return "[" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + "]"
