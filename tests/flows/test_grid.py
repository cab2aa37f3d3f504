"""The grid's plan without a server: what is encoded how often, counted by the keys of the steps asked for."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from flows.grid import make_cells
from flows.train import Trained
from ivcore.config import PartConfig, RunConfig


@dataclass
class Counting:
    """A variant whose steps do nothing but take a key from their recipe and inputs, and are found the second time."""

    config: RunConfig
    made: list[str] = field(default_factory=list)
    store: dict[str, dict[str, Any]] = field(default_factory=dict)
    arm: str = "main"
    seed: int = 0

    def do(self, task: Any, *arguments: Any) -> dict[str, Any]:
        recipe = [a if isinstance(a, (dict, str, list)) else a.recipe() for a in arguments]
        key = hashlib.sha256(json.dumps([task.name, recipe], sort_keys=True).encode()).hexdigest()
        if key not in self.store:
            self.made.append(task.name)
            kind = {"decode": "frames", "featurize": "features", "score": "scores"}[task.name]
            self.store[key] = {"kind": kind, "key": key}
        return self.store[key]


def trained() -> Trained:
    s2, clip = ({"kind": kind, "key": kind} for kind in ("s2", "clip"))
    shared = {"kind": "features", "key": "f"}
    return Trained({"kind": "manifest", "key": "m"}, [(s2, shared), (clip, shared)])


def run(variant: Counting) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for frames in (4, 8):
        for dtype in ("float32", "bfloat16"):
            out |= make_cells(variant, trained(), frames, dtype)
    return out


def test_each_frames_and_dtype_is_encoded_once_and_nothing_again():
    variant = Counting(RunConfig())
    scores = run(variant)
    # 2 x 2 arms of two models; with s2's two heads and clip's one, in both directions: 24 cells a language and length
    assert len(scores) == 8 and "main_f4_bfloat16.0.clip" in scores
    assert {n: variant.made.count(n) for n in set(variant.made)} == {"decode": 2, "featurize": 4, "score": 8}
    variant.made.clear()
    assert run(variant) == scores and variant.made == []


def test_another_data_set_is_ingested_and_encoded_by_itself():
    part = PartConfig(name="other", dataset="msvd", root="videos", annotations="a.json")
    variant = Counting(RunConfig())
    own = make_cells(variant, trained(), 8, "float32")
    other = dataclasses.replace(trained(), manifest={"kind": "manifest", "key": "n"})
    variant.made.clear()
    cells = make_cells(variant, other, 8, "float32", part)
    assert list(cells) == ["main_other_f8_float32.0.s2", "main_other_f8_float32.0.clip"]
    assert variant.made == ["decode", "featurize", "score", "score"]
    assert not set(str(c["key"]) for c in cells.values()) & {str(c["key"]) for c in own.values()}


def test_clip_with_a_trunk_of_its_own_is_encoded_by_it():
    variant, own = Counting(RunConfig()), trained()
    own.models[1] = (own.models[1][0], {"kind": "features", "key": "moved"})
    make_cells(variant, own, 4, "float32")
    assert variant.made.count("featurize") == 2
