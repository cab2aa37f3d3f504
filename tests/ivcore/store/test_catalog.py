import json

import numpy as np
import pytest

from ivcore.errors import UserError
from ivcore.store import schemas
from ivcore.store.artifacts import Store
from ivcore.store.catalog import QUESTIONS, TABLES, build, query

CAPTION = {"caption_id": "a", "clip_id": "c", "language": "en", "text_class": "short", "caption": "x"}


def _put(store, kind, key, files):
    with store.write(kind, key, 1, {"k": 5}, {}) as draft:
        for name, (rows, table) in files.items():
            schemas.write(draft.path / name, rows, table)
        draft.count(2)
        draft.facts = {"note": key}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("o'brien")  # a quote in the path
    store = Store(home, {"mlflow_run_id": "m"})
    _put(store, "manifest", "a" * 24, {"captions.parquet": ([CAPTION], schemas.CAPTIONS)})
    _put(store, "manifest", "b" * 24, {"captions.parquet": ([CAPTION] * 2, schemas.CAPTIONS)})
    kind = schemas.features(2, 3, 4, "float16")
    row = {"clip_id": "c", "tokens": np.arange(6, dtype=np.float16).tobytes(), "pooled": [0.0, 1.0, 2.0, 3.0]}
    _put(store, "features", "c" * 24, {"part-00000.parquet": ([row], kind)})
    latest = home / "reports" / "latest"
    latest.mkdir(parents=True)
    rows = [{"model": "s2", "r1": 40, "r1_ci95": [30, 50]}, {"model": "clip", "r1": 41.5, "metrics": {"map": 0.5}}]
    (latest / "report.json").write_text(json.dumps({"rows": rows, "paired": [], "stages": [{"cached": True}]}))
    return home


def test_records_and_views(home):
    assert query(home, "select kind, rows, config->>'k', mlflow_run_id from records order by kind, key") == (
        ["kind", "rows", "(config ->> 'k')", "mlflow_run_id"],
        [("features", 2, "5", "m"), ("manifest", 2, "5", "m"), ("manifest", 2, "5", "m")],
    )
    counts = query(home, "select key, count(*) from captions group by key order by key")[1]
    assert counts == [("a" * 24, 1), ("b" * 24, 2)]
    assert query(home, "select octet_length(tokens), pooled[2] from features")[1] == [(12, 1.0)]


def test_the_newest_report(home):
    assert query(home, "select model, r1, r1_ci95->>0, metrics->>'map' from rows")[1] == [
        ("s2", 40.0, "30", None),
        ("clip", 41.5, None, "0.5"),
    ]
    assert query(home, "select cached from stages")[1] == [(True,)]


@pytest.mark.parametrize(
    "sql",
    [
        "copy (select 1) to '{home}/artifacts/x.csv'",
        "explain analyze copy (select 1) to '{home}/artifacts/x.csv'",
        "explain /* a */ analyze copy (select 1) to '{home}/artifacts/x.csv'",
        "select * from read_csv('/etc/passwd')",
        "select * from '/etc/passwd'",
        "select * from read_text('{home}/artifacts/../../../../../etc/passwd')",
        "select * from glob('/etc/*')",
        "attach '/tmp/other.db'",
        "install httpfs",
        "set memory_limit='9GB'",
        "create table t as select 1",
        "with x as (insert into records select * from records returning *) select * from x",
        "select 1; select 2",
        "",
        "selec 1",
    ],
)
def test_only_reads_of_the_workspace(home, sql):
    with pytest.raises(UserError, match=r"^sql: "):
        query(home, sql.format(home=str(home).replace("'", "''")))
    assert not list((home / "artifacts").glob("*.csv"))


def test_it_can_be_deleted_and_read_while_it_is_rebuilt(home):
    import duckdb

    file = build(home)
    with duckdb.connect(str(file), read_only=True) as reader:
        build(home)
        assert reader.execute("select count(*) from records").fetchone() == (3,)
    file.unlink()
    assert query(home, "select count(*) from records")[1] == [(3,)]
    assert not list(home.glob(".catalog*"))


def test_the_questions_have_answers(tmp_path):
    store = Store(tmp_path)
    clip = dict.fromkeys((c.name for c in schemas.MANIFEST.columns), None)
    clip |= {"sha256": "", "bytes": 1, "split": "test", "family": "f"}
    clip |= {"source": "made_up", "media": "video", "weight": 1}
    names = ("good", "hangs", "text")
    clips = [{**clip, "clip_id": n, "path": f"{n}.mp4", "error": "unreadable" if n == "text" else None} for n in names]
    mended = [{**c, "error": "unreadable"} for c in clips]  # of an earlier manifest, where all failed
    _put(store, "manifest", "b" * 24, {"manifest.parquet": (mended, schemas.MANIFEST)})
    twin = {**clip, "clip_id": "twin", "path": "twin.mp4", "error": "duplicate"}  # no fault
    _put(store, "manifest", "a" * 24, {"manifest.parquet": ([*clips, twin], schemas.MANIFEST)})
    none = dict.fromkeys(c.name for c in schemas.FRAMES.columns)
    frames = [{**none, "clip_id": "good"}] + [{**none, "clip_id": n, "error": "timeout"} for n in names[1:]]
    with store.write("frames", "f" * 24, 1, {}, {"manifest": f"manifest/{'a' * 24}"}) as draft:
        schemas.write(draft.path / "index.parquet", frames, schemas.FRAMES)
    latest = tmp_path / "reports" / "latest"
    latest.mkdir(parents=True)
    one = {"arm": "main", "language": "en", "text_class": "short", "model": "s2", "head": "sim"}
    rows = [{**one, "seed": s, "direction": d, "r1": r} for s, d, r in ((0, "t2v", 40), (1, "t2v", 50), (0, "v2t", 30))]
    stage = {"step": "fit_s2", "label": "words", "arm": "main", "seed": 0, "cached": False, "rows_ok": 3}
    stages = [{**stage, "wall_s": 2.5, "cpu_s": 4.0}]
    (latest / "report.json").write_text(json.dumps({"rows": rows, "paired": [], "stages": stages}))
    failed, recall, seconds = (query(tmp_path, sql)[1] for sql in QUESTIONS.values())
    assert [row[:2] for row in failed] == [("hangs.mp4", "timeout"), ("text.mp4", "timeout")]
    assert query(tmp_path, "select count(*) from manifests")[1] == [(7,)]
    assert recall == [("main", "en", "short", "s2", "sim", 45.0, 30.0)]
    assert seconds == [("fit_s2", "words", "main", 0, False, 3.0, 2.5, 4.0)]
    assert dict(query(tmp_path, TABLES)[1])["curves"] == "key, phase, step, name, value"


def test_a_manifest_without_a_column_of_today_is_read(tmp_path):
    store, old = Store(tmp_path), [c for c in schemas.MANIFEST.columns if c.name != "detail"]
    row = {c.name: None if c.nullable else 1 if "int" in str(c.type) else "x" for c in old}
    with store.write("manifest", "a" * 24, 1, {}, {}) as draft:
        table = schemas.Table("manifest", 2, "", tuple(old))
        schemas.write(draft.path / "manifest.parquet", [{**row, "error": "missing"}], table)
    assert query(tmp_path, QUESTIONS["Which videos failed, and why"])[1] == [("x", "missing", None)]


def test_steps_that_have_not_run_have_empty_tables(tmp_path):
    (tmp_path / "artifacts").mkdir()
    assert query(tmp_path, "select path, error from manifest") == (["path", "error"], [])
    with pytest.raises(UserError, match=r"rows does not exist.*`iv sql` alone"):
        query(tmp_path, "select * from rows")


def test_no_workspace_is_the_callers_mistake(tmp_path):
    with pytest.raises(UserError, match="is no workspace"):
        query(tmp_path, "select 1")
