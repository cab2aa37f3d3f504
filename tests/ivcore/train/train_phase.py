"""A phase on a workspace that holds a `Chain`, for kills.

`python -m tests.ivcore.train.train_phase HOME KIND STEPS [NAME=VALUE ...]`
"""

import sys
from pathlib import Path

from ivcore import config, steps
from ivcore.store.artifacts import Store
from tests.ivcore.train.chain import SMALL

if __name__ == "__main__":
    home, kind, count, *sets = sys.argv[1:]
    store = Store(Path(home))
    # Of several the one with most rows: other tests have left features of one split there.
    found = sorted(store.all(), key=lambda a: (a.rows, a.id))
    of_kind = {a.kind: a for a in found if a.kind != "s2" or a.record()["facts"]["phase"] == "all"}
    c = config.variants(config.load("demo", [*SMALL, "train.save_every_steps=1", *sets]))[0][2]
    stage = c.train.s2 if kind == "s2" else c.train.clip
    phase = stage.phases[0].model_copy(update={"name": "long", "steps": int(count)})
    step = {"s2": steps.fit_s2, "clip": steps.fit_clip}[kind]
    inputs, init = (of_kind["frames"], None) if kind == "s2" else (of_kind["features"], of_kind["s2"])
    steps.run(step(store, c.model, c.train, phase, of_kind["manifest"], inputs, init), store)
