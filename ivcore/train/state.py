"""The state of an unfinished phase on disk: FOLDER/step-000123 with tensors.safetensors and state.json.

The curves are one file beside the states, which is only added to: a state says how many lines of it are its own.

A state is written aside, flushed and renamed, so what is seen is whole. The loop is held up as little as can be: the
tensors are copied beside the next forward and backward (only the next update waits), and written by the same thread.
"""

import hashlib
import itertools
import json
import logging
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ivcore.checkpoints.weights import write_safetensors
from ivcore.store import durable
from ivcore.store.known_files import sha256_file
from ivcore.train.parallel import shard_like

SCHEMA = 1  # a state of another schema is not gone on from
TENSORS, FIGURES, CURVES = "tensors.safetensors", "state.json", "curves.jsonl"
said = logging.getLogger("iv.train")


class States:
    """The newest `keep` states of a phase."""

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="state")
        self._writing: Future[None] | None = None
        self._lines = self._bytes = 0  # of the curves that are kept
        self._copied = threading.Event()
        self._copied.set()

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and figures of the newest state that can be read, or None."""
        for place in reversed(self._all()):
            try:
                figures: dict[str, Any] = json.loads((place / FIGURES).read_text())
                seal = figures.pop("sha256", None)  # earlier versions have none
                if seal not in (None, _seal(json.dumps(figures), place / TENSORS)):
                    raise ValueError("it is not as it was written")
                if figures.pop("schema") == SCHEMA:
                    if isinstance(figures.get("curves"), int):  # earlier versions kept the rows here
                        figures["curves"] = self._curves(figures["curves"])
                    return load_file(place / TENSORS), figures
            except (OSError, ValueError, KeyError, SafetensorError) as error:
                said.warning("the state %s is damaged (%s); the one before it is taken", place, error)
        return None

    @property
    def busy(self) -> bool:
        """A state is being written; the next one has to wait."""
        return self._writing is not None and not self._writing.done()

    def save(
        self,
        step: int,
        tensors: Mapping[str, Tensor],
        figures: Mapping[str, Any],
        curves: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Begin to write the state after `step` steps; call `wait_copied` before a tensor is changed.

        `curves`: every row so far; those of the save before are not looked at again.

        Raises:
            OSError: if the state before could not be written.
        """
        self.wait()
        self._copied.clear()
        lines = b""
        if curves is not None:
            figures = {**figures, "curves": len(curves)}
            lines = b"".join(json.dumps(row).encode() + b"\n" for row in curves[self._lines :])
            self._lines = len(curves)
        text = json.dumps({"schema": SCHEMA, **figures})
        self._writing = self._thread.submit(self._write, f"step-{step:06d}", dict(tensors), text, lines)

    def wait_copied(self) -> None:
        """Return once the tensors of the last `save` may be changed."""
        self._copied.wait()

    def wait(self) -> None:
        """Return once the last state is on disk."""
        if self._writing is not None:
            self._writing.result()

    def close(self) -> None:
        """End the thread; the last state is on disk then."""
        self._thread.shutdown()

    def _write(self, name: str, tensors: dict[str, Tensor], text: str, lines: bytes) -> None:
        try:
            copies = {key: value.detach().to("cpu", copy=True) for key, value in tensors.items()}
        finally:
            self._copied.set()
        del tensors
        self.folder.mkdir(parents=True, exist_ok=True)
        if lines:
            self._append(lines)
        with durable.aside(self.folder / name) as made:
            write_safetensors(made / TENSORS, copies, copies.__getitem__)
            sealed = {**json.loads(text), "sha256": _seal(text, made / TENSORS)}
            (made / FIGURES).write_text(json.dumps(sealed))
            shutil.rmtree(self.folder / name, ignore_errors=True)  # of another schema
            durable.put_folder(made, self.folder / name)
        for old in self._all()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)

    def _append(self, lines: bytes) -> None:
        """Add to the curves, after what the state gone on from has of them."""
        with (self.folder / CURVES).open("ab") as f:
            f.truncate(self._bytes)
            f.write(lines)
            f.flush()
            os.fsync(f.fileno())
        self._bytes += len(lines)

    def _curves(self, num: int) -> list[dict[str, Any]]:
        """The first `num` rows; ValueError where there are fewer."""
        if not num:
            return []
        with (self.folder / CURVES).open("rb") as f:
            lines = list(itertools.islice(f, num))
        if len(lines) < num:
            raise ValueError(f"{CURVES} has {len(lines)} of {num} lines")
        self._lines, self._bytes = num, sum(map(len, lines))
        return [json.loads(line) for line in lines]

    def _all(self) -> list[Path]:
        """Finished states, oldest first."""
        found = [p for p in self.folder.glob("step-*") if (p / FIGURES).is_file()]
        return sorted(found, key=lambda place: int(place.name.removeprefix("step-")))


def _seal(figures: str, tensors: Path) -> str:
    """One digest of both files."""
    return hashlib.sha256(f"{figures} {sha256_file(tensors)}".encode()).hexdigest()


def model_and_optimiser(named: Mapping[str, Tensor], optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The trained parameters and what the optimiser keeps of each, by name: `model/NAME`, `optimiser/FIELD/NAME`."""
    tensors = {f"model/{name}": parameter.detach() for name, parameter in named.items()}
    for name, parameter in named.items():
        for field, value in optimiser.state.get(parameter, {}).items():
            tensors[f"optimiser/{field}/{name}"] = value
    return tensors


@torch.no_grad()
def restore(named: Mapping[str, Tensor], optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `model_and_optimiser` named."""
    for key, value in tensors.items():
        kind, _, name = key.partition("/")
        if kind == "model":
            named[name].copy_(shard_like(value, named[name]))
        elif kind == "optimiser":
            field, _, name = name.partition("/")
            # The count of steps lies where torch keeps it: on the CPU, or for the fused form with the parameter.
            own = named[name]
            there = own.device if optimiser.defaults.get("fused") else torch.device("cpu")
            optimiser.state[own][field] = value.to(there) if field == "step" else shard_like(value, own)
