"""Makes keys.json: the key of every step of every named run, on made-up videos and weights of a few bytes.

A workspace is found again only as long as these stay. Run it (`python -m tests.golden.keys`) only when the bytes of a
step are meant to change, with a higher number in ivcore/store/versions.py.
"""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ivcore import config, steps
from ivcore.config import RunConfig
from ivcore.steps import Step
from ivcore.store.artifacts import Artifact, Store

FILE = Path(__file__).with_suffix(".json")
# The step versions that the file was made with.
RECORDED = {
    "videos": 2,
    "manifest": 5,
    "frame_shard": 3,
    "frames": 3,
    "features": 3,
    "s2": 9,
    "clip": 7,
    "scores": 4,
    "report": 20,
}
# Beside the named runs: what a key depends on only where it is set.
MORE: dict[str, dict[str, Any]] = {
    "demo, settings": {
        "run": "demo",
        "frames": {"shift": 0.25, "deadline_s": 60.0},
        "features": {"views": 2, "flip": True},
        "eval": {"split": "val", "k": 8, "kv_gb": 0.0},
        "train": {"dtype": "bfloat16", "threads": 1},
    },
    "mine, arms": {
        "run": "mine",
        "seeds": [1, 2],
        "arms": [{"name": "a"}, {"name": "b", "set": {"train.s2.lr": 0.01}}],
    },
}


class MadeUp(Artifact):
    """A finished step without files."""

    def record(self) -> dict[str, Any]:
        return {"facts": {"vision_digest": f"tower of {self.id}"}}


def keys(place: Path) -> dict[str, dict[str, str]]:
    """The keys by step of each run; `place` is an empty folder."""
    (place / "captions.csv").write_text("path,caption\na.mp4,a red ball\nb.mp4,a blue box\n")
    for name in ("a.mp4", "b.mp4"):
        (place / name).write_bytes(name.encode())
    named = {path.stem: {"run": path.stem} for path in config.RUNS.glob("*.toml")}
    out = {}
    for name, values in sorted((named | MORE).items()):
        out[name] = {label: step.key for label, step in _steps(config.parse(values), place)}
    return out


def _steps(run: RunConfig, place: Path) -> Iterator[tuple[str, Step]]:
    """Every step of a run, as the flows state them."""
    store, scores = Store(place / "home"), {}
    for arm, seed, variant in config.variants(run):
        for label, step in _chain(store, _given(variant, place)):
            if step.kind == "scores":
                scores[f"{arm}.{seed}.{step.label}"] = _made(store, step)
            yield f"{arm}.{seed}.{label}", step
    yield "report", steps.report(store, run.eval, scores)


def _given(variant: RunConfig, place: Path) -> RunConfig:
    """The variant with the made-up videos, and weights where it trains no model from nothing."""
    values = variant.model_dump(mode="json")
    if variant.data.dataset == "folder":
        values = config.override(values, "data.root", str(place))
        values = config.override(values, "data.annotations", str(place / "captions.csv"))
    for kind in ("s2", "clip"):
        if variant.model.size == "tiny" or not getattr(variant.train, kind).phases:
            continue
        folder = place / f"{kind}-{variant.model.size}-{variant.frames.num_frames}"
        folder.mkdir(exist_ok=True)
        vision = {"num_frames": variant.frames.num_frames, "image_size": variant.frames.size_px}
        (folder / "config.json").write_text(json.dumps({"model_type": f"ivflow_{kind}", "vision": vision}))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"weights")
        values = config.override(values, f"model.{kind}_init", str(folder))
    return config.parse(values)


def _chain(store: Store, run: RunConfig) -> Iterator[tuple[str, Step]]:
    manifest_step = steps.ingest(store, run.data)
    yield "ingest", manifest_step
    manifest = _made(store, manifest_step)
    frames_step = steps.decode(store, run.data, run.frames, manifest)
    yield "decode", frames_step
    frames, made = _made(store, frames_step), None
    for kind, fit in (("s2", steps.fit_s2), ("clip", steps.fit_clip)):
        phases = getattr(run.train, kind).phases
        if getattr(run.model, f"{kind}_init"):
            step = steps.import_checkpoint(kind, run.model, run.frames)
            yield f"{kind} imported", step
            made = _made(store, step)
        for phase in phases:
            inputs = frames
            if phase.reads_features:
                inputs = _made(store, steps.featurize(store, run.features, run.train, frames, made))
            step = fit(store, run.model, run.train, phase, manifest, inputs, made, run.features)
            yield f"{kind} {phase.name}", step
            made = _made(store, step)
        if made is None or made.kind != kind:
            continue
        for split in (None, run.eval.split):
            step = steps.featurize(store, run.features, run.train, frames, made, split)
            yield f"featurize {kind} {split or 'all'}", step
            yield (
                f"score {kind} {split or 'all'}",
                steps.score(store, run.eval, run.train, manifest, _made(store, step), made),
            )


def _made(store: Store, step: Step) -> Artifact:
    return MadeUp(step.kind, step.key, store.path(step.kind, step.key), 2)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        found = keys(Path(place))
    FILE.write_text(json.dumps(found, indent=1) + "\n")
    print(f"golden: {sum(map(len, found.values()))} keys in {FILE}")
