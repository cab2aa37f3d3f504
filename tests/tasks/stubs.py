"""Made-up bodies of the seven steps: right kinds, keys and wiring, files of a few bytes, no torch."""

import sys
from types import ModuleType

import pytest

from ivcore import steps
from ivcore.retrieval import slices
from ivcore.steps import Step


def _make(text):
    """Every checkpoint has a trunk of its own, told by its key."""

    def make(draft, log):
        for i in range(5):
            log({"loss": 1.0 / (i + 1)}, i)
        (draft.path / "data.txt").write_text(text)
        draft.count(3, 1)
        draft.facts = {"vision_digest": draft.path.name.split(".")[1]}

    return make


def _step(name, kind, config, inputs, label=""):
    return Step(name, kind, config, inputs, _make(name), label)


def install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stubs in the place of ivcore.steps' functions, of ivcore.verdict.report and ivcore.verdict.publish."""
    stubs = {
        "ingest": lambda store, data: _step("ingest", "manifest", data.recipe(), {}),
        "decode": lambda store, data, frames, m, *later: _step("decode", "frames", frames.recipe(), {"manifest": m}),
        "featurize": lambda store, f, t, frames, e, split=None: _step(
            "featurize",
            "features",
            {"of": e.key, "reckoned_in": t.dtype, "vision_digest": e.key, **f.recipe()},
            {"frames": frames},
        ),
        "fit_s2": lambda *a: _fit("s2", *a),
        "fit_clip": lambda *a: _fit("clip", *a),
        "score": lambda store, e, t, m, f, c, more=(): _step(
            "score", "scores", {"k": e.k}, {"manifest": m, "features": f, "checkpoint": c}, c.kind
        ),
        "report": lambda store, e, scores: _step("report", "report", e.recipe(), dict(scores)),
    }
    for name, stub in stubs.items():
        monkeypatch.setattr(steps, name, stub)
    monkeypatch.setattr(slices, "check_split", lambda manifest, frames, evaluation: None)
    publishing = ModuleType("ivcore.verdict.publish")
    publishing.publish = _publish
    monkeypatch.setitem(sys.modules, "ivcore.verdict.publish", publishing)
    report = ModuleType("ivcore.verdict.report")
    report.cells_of = lambda store, key: [{"model": "s2", "k": None, "r1": 50.0}, {"model": "clip", "k": 4, "r1": 40.0}]
    monkeypatch.setitem(sys.modules, "ivcore.verdict.report", report)


def _fit(kind, store, model, train, phase, manifest, inputs, init, features):
    before = {"init": init} if init else {}
    config = {"seed": train.seed, "phase": phase.recipe()}
    return _step(f"fit_{kind}", kind, config, {"manifest": manifest, inputs.kind: inputs, **before}, phase.name)


def _publish(store, report, stages, training):
    import json

    folder = store.home / "reports" / "latest"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(
        json.dumps({"schema": 1, "rows": [], "paired": [], "stages": stages, "training": training})
    )
    (folder / "report.html").write_text("<p>stub</p>")
