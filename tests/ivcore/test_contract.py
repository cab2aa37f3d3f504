"""report.json has every field that scripts and other machines rely on, whatever else it grows."""

import importlib.util
import json
from pathlib import Path

import pytest

from ivcore import steps
from ivcore.store.artifacts import Store
from ivcore.verdict.publish import publish

_spec = importlib.util.spec_from_file_location("made_up", Path(__file__).with_name("verdict") / "test_report.py")
made_up = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(made_up)

PROTOCOL = "dataset split split_sha256 n_texts n_videos languages frames k notes"
LISTS = {
    "rows": "task model head language text_class direction k frames max_text_len dtype device source n metrics r1 "
    "r1_ci95 r5 r10 medr mrr query_ms_p50 query_ms_p95 query_gflop train_gflop train_cpu_s index_bytes_per_video",
    "paired": "a b language direction delta_r1 ci95 p method",
    "stages": "step key cached wall_s cpu_s peak_rss_mb rows_in rows_ok rows_failed mlflow_run_id prefect_run_id",
    "advice": "task language variant because",
}
FROZEN = "total trained trained_names digest_before digest_after"
VALUES = {
    "task": {"retrieval", "multiple_choice", "classification"},
    "model": {"s2", "clip"},
    "head": {"sim", "dsl", "match"},
    "text_class": {"short", "long"},
    "direction": {"t2v", "v2t"},
    "source": {"measured", "computed", "published"},
}


def assert_contract(report: dict) -> None:
    """Every field of the contract, in its range."""
    assert report["schema"] == 1
    assert set(PROTOCOL.split()) <= report["protocol"].keys()
    assert set(FROZEN.split()) <= report["frozen"].keys()
    assert report["frozen"]["digest_before"] == report["frozen"]["digest_after"]
    for name, fields in LISTS.items():
        assert report[name], name
        for row in report[name]:
            assert set(fields.split()) <= row.keys(), (name, set(fields.split()) - row.keys())
    for row in report["rows"]:
        assert all(row[name] in values for name, values in VALUES.items())
        assert all(0 <= row[name] <= 100 for name in ("r1", "r5", "r10", "mrr"))
        assert row["r1_ci95"][0] <= row["r1"] <= row["r1_ci95"][1] and row["metrics"]["r1"] == row["r1"]
        assert set(row["metrics"]) >= {"meanr", "map", "ndcg10"} or row["task"] != "retrieval"
    for pair in report["paired"]:
        assert pair["ci95"][0] <= pair["delta_r1"] <= pair["ci95"][1] and 0 <= pair["p"] <= 1
        assert all(side.count("/") == 1 for side in (pair["a"], pair["b"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("home"))
    report = steps.run(steps.report(store, made_up.EVAL, made_up.build(store)), store)
    ran = dict.fromkeys(LISTS["stages"].split(), 0) | {"step": "ingest", "key": "k", "cached": True}
    return publish(store, report, [ran])


def test_the_report_has_every_field(folder):
    assert_contract(json.loads((folder / "report.json").read_text()))


def test_every_picture_has_a_table(folder):
    html = (folder / "report.html").read_text()
    figures = html.split("<figure>")[1:]
    assert len(figures) == len(list(folder.glob("*.svg"))) == 5
    assert all("<table>" in after.split("<h2>")[0] for after in figures)


if __name__ == "__main__":  # python tests/ivcore/test_contract.py WORKSPACE/reports/latest/report.json
    import sys

    assert_contract(json.loads(Path(sys.argv[1]).read_text()))
    print("every field is there")
