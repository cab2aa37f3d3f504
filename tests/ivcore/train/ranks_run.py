"""A rank of the tests in test_ranks.py: `torchrun ... -m tests.ivcore.train.ranks_run FOLDER`.

Rank 0 writes FOLDER/NAME.pt of every case: losses of each step, trained parameters, digest of the frozen ones.
"""

import contextlib
import sys
import weakref
from pathlib import Path

import torch

from ivcore.models.freeze import digest
from ivcore.train import parallel
from ivcore.train.parallel import Ranks, whole
from tests.ivcore.train import made_up

STEPS = 20
ONLY = {"token_drop": 0.5, "even_negatives": 0.0}
CASES = {
    "vtc": ("s2", {"vtc": 1.0, "vtm": 0.0, "mlm": 0.0, **ONLY}),
    "vtm": ("s2", {"vtc": 0.0, "vtm": 1.0, "mlm": 0.0, **ONLY}),
    "mlm": ("s2", {"vtc": 0.0, "vtm": 0.0, "mlm": 1.0, **ONLY}),
    "all": ("s2", {"vtc": 1.0, "vtm": 1.0, "mlm": 1.0, "loss_every": 2, **ONLY}),
    "clip": ("clip", {"trainable": "clip"}),
}


def run(name, place, ranks=None, steps=STEPS, until=None, stage=None, **train):
    """Losses, parameters and frozen digest of a case; no dropout, whose draws a rank has of its own."""
    kind, fields = CASES[name]
    loop = made_up.loop(kind, made_up.phase(kind, steps=steps, **fields), stage, ranks, dropout=0.0, **train)
    losses, figures = [], loop.backward.figures

    def watched(names, values):
        if loop.totals.step == until:
            raise KeyboardInterrupt
        losses.append(figures(names, values))
        return losses[-1]

    loop.backward.figures = watched
    try:
        resumed = loop.run(made_up.batches(steps), lambda figures, step: None, Path(place))
    except KeyboardInterrupt:
        return None
    state = {n: whole(p.detach()).clone() for n, p in loop.model.named_parameters()}
    shell = torch.nn.Module()
    frozen = {n.replace(".", "_"): p for n, p in state.items() if n not in loop.named}
    for n, p in frozen.items():
        shell.register_buffer(n, p)
    return {"losses": losses, "trained": {n: state[n] for n in loop.named}, "resumed": resumed,
            "frozen": digest(shell, frozen)}  # fmt: skip


@contextlib.contextmanager
def watched_whole():
    """A list of how many tensors of all ranks were held at once, each time that one was made."""
    held, counts, made = [], [], parallel.whole

    def watched(value):
        found = made(value)
        if found is not value:  # it was in shards
            held.append(weakref.ref(found))
            counts.append(sum(one() is not None for one in held))
        return found

    parallel.whole = watched
    try:
        yield counts
    finally:
        parallel.whole = made


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    found = {}
    ddp = Ranks.join("ddp", "cpu")
    for name in CASES:
        found[name] = run(name, folder / f"ddp-{name}", ddp)
    fsdp = Ranks(ddp.rank, ddp.count, "fsdp2")
    for name in ("all", "clip"):
        found[f"fsdp-{name}"] = run(name, folder / f"fsdp-{name}", fsdp)
    found["fsdp-half"] = run("all", folder / "fsdp-half", fsdp, steps=6, dtype="bfloat16")
    found["ddp-half"] = run("all", folder / "ddp-half", ddp, steps=6, dtype="bfloat16")
    with watched_whole() as most:
        run("all", folder / "fsdp-broken", fsdp, until=11, save_every_steps=4)
    (folder / f"most-{ddp.rank}").write_text(str(max(most)))
    found["fsdp-resumed"] = run("all", folder / "fsdp-broken", fsdp)
    run("all", folder / "ddp-broken", ddp, until=11, save_every_steps=4)
    found["ddp-resumed"] = run("all", folder / "ddp-broken", ddp)
    found["cached"] = run("vtc", folder / "cached", ddp, stage={"grad_cache_chunk": 4})
    if ddp.rank == 0:
        torch.save(found, folder / "found.pt")
    torch.distributed.destroy_process_group()
