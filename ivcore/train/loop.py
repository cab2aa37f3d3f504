"""The loop: one phase of s2 or clip, batch by batch.

A phase that is interrupted goes on from its last saved state and ends with the same bytes: batches are drawn anew up to
the step, whatever else is random is a function of the step (`random_draws`), and the state holds the rest (`state`,
`totals`).
"""

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from ivcore.config import Phase, StageConfig, TrainConfig
from ivcore.errors import WorkError
from ivcore.features.prefetch import prefetch
from ivcore.retrieval.embed import Encoder
from ivcore.store.log import Log
from ivcore.train import health
from ivcore.train.backward import Backward, deterministic
from ivcore.train.batches import Batch
from ivcore.train.objective import Inputs
from ivcore.train.optimizer import adamw, set_lr
from ivcore.train.parallel import ALONE, Ranks, whole
from ivcore.train.source import Source
from ivcore.train.state import States, model_and_optimiser, restore
from ivcore.train.stop import until_stopped
from ivcore.train.totals import Totals

LOG_EVERY = 10  # steps between figures
Validate = Callable[[Encoder], float]  # R@1 on the validation split
log_line = logging.getLogger("iv.train")


@dataclass(frozen=True)
class Step:
    """An update and what it figured: losses, gradient norm, temperature; on their way from the device, or here."""

    number: int  # from 0
    batch: Batch
    names: list[str]
    lr: float
    figures: Tensor  # float32, on the CPU
    there: torch.cuda.Event | None = None

    @classmethod
    def of(cls, number: int, batch: Batch, names: list[str], lr: float, figures: Tensor) -> "Step":
        """With the figures begun to be copied from their device, which nobody waits for now."""
        if not figures.is_cuda:
            return cls(number, batch, names, lr, figures)
        here = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True).copy_(figures, non_blocking=True)
        there = torch.cuda.Event()
        there.record()
        return cls(number, batch, names, lr, here, there)

    def values(self) -> list[float]:
        """The figures; waits for them."""
        if self.there is not None:
            self.there.synchronize()
        found: list[float] = self.figures.tolist()
        return found


class Loop:
    """The steps of a phase; `totals` and the model of `encoder` are what comes of them."""

    def __init__(
        self,
        encoder: Encoder,
        source: Source,
        train: TrainConfig,
        stage: StageConfig,
        phase: Phase,
        ranks: Ranks = ALONE,
        validate: Validate | None = None,
        on_device: bool | None = None,
    ) -> None:
        """`on_device`: figures are read a step late and batches made ahead, so that no step waits; None: on a GPU."""
        self.encoder, self.model, self.source = encoder, encoder.model, source
        self.train, self.stage, self.phase, self.ranks, self.validate = train, stage, phase, ranks, validate
        self.backward = Backward(encoder, source, train, stage, phase, ranks)
        self.on_device = encoder.device.type != "cpu" if on_device is None else on_device
        self.optimiser = adamw(self.model, stage, phase, fused=self.on_device)
        self.pending: Step | None = None
        self.named = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.best: dict[str, Tensor] = {}  # the trained parameters at the best validation, where they are to be kept
        self.totals = Totals()
        self.cpu_s_before = 0.0  # of the processes that this one goes on from

    def run(self, batches: Iterable[Batch], log: Log, place: Path) -> int:
        """Take every step that is left; returns the step it went on from.

        Raises:
            SystemExit: after SIGTERM; the state is saved then.
            WorkError: if a loss or gradient is no number and may not be skipped.
            UserError: if a batch cannot be divided among ranks and parts.
        """
        states, last = States(place, self.train.keep_states), self.phase.steps
        resumed = self._resume(states)
        totals = self.totals
        last_batch = resumed if self._stopped_early else None  # stopped by SIGTERM in the step that ended it
        left, hidden = itertools.islice(batches, resumed, last_batch), self.ranks.rank > 0 or None
        bar = tqdm(None, f"fit {self.phase.name}", last, unit="step", initial=resumed, disable=hidden)
        self.model.clamp_temp()
        saved, self.backward.speed = (resumed, time.monotonic()), health.Speed()
        source = self._ready(left, resumed)
        ordered = self.encoder.device.type == "cpu" or self.train.deterministic
        with (
            contextlib.closing(states),
            contextlib.closing(source),
            deterministic(ordered),
            torch.random.fork_rng(devices=[]),
            until_stopped() as stop,
        ):
            start, cpu = time.monotonic(), time.process_time()
            for batch, ready in source:
                self._step(batch, ready, states, place)
                bar.update()
                if totals.step % LOG_EVERY == 0 or totals.step == last:
                    self._settle(place)
                    self._report(log)
                    bar.set_postfix_str(f"loss {totals.figures['loss']:.3f}")
                done = self._has_settled(log) or totals.step >= last
                totals.seconds += time.monotonic() - start
                here = self.ranks.count // self.train.nodes  # each has as much to do
                totals.cpu_s += (time.process_time() - cpu) * here
                device = self.encoder.device
                asked, due = self.ranks.any(stop.is_set(), self._save_is_due(*saved, states), device=device)
                if asked or (due and not done):
                    self._settle(place)
                    self._save(states)
                    saved = totals.step, time.monotonic()
                if asked:
                    states.wait()
                    log_line.warning("phase %s: stopped after step %d, which is kept", self.phase.name, totals.step)
                if asked or done:
                    break
                start, cpu = time.monotonic(), time.process_time()
        self._settle(place)
        if self.best:
            restore(self.named, self.optimiser, {f"model/{name}": value for name, value in self.best.items()})
        return resumed

    def _ready(self, batches: Iterable[Batch], first: int) -> Generator[tuple[Batch, list[Inputs] | None]]:
        """The batches, with their inputs where these are made ahead."""
        if not self.on_device or self.backward.chunk:  # gradient caching makes its inputs twice, in parts
            yield from ((batch, None) for batch in batches)
            return

        def make(numbered: tuple[int, Batch]) -> list[Inputs]:
            number, batch = numbered
            return list(self.backward.parts(batch, self.backward.draws(batch, number)))

        with contextlib.closing(prefetch(enumerate(batches, first), make)) as found:
            for (_, batch), ready in found:
                yield batch, ready

    def _step(self, batch: Batch, ready: list[Inputs] | None, states: States, place: Path) -> None:
        """One update. What it figured is read now, or on a GPU a step later, when it is long there.

        There the update itself is made only if the figures are finite: the optimiser looks at a flag on the device.
        """
        totals = self.totals
        lr = set_lr(self.optimiser, self.stage, self.phase, totals.step)
        names, losses = self.backward(batch, totals, ready)
        norm = self.ranks.clip(self.named.values(), self.stage.grad_clip)
        figures = torch.cat([losses, norm.to(losses).reshape(1)])
        states.wait_copied()
        if self.on_device:
            self.optimiser.found_inf = (~figures.isfinite().all()).float()  # type: ignore[attr-defined]
            self._update()
            figures = torch.cat([figures, self.model.temp.detach().to(figures).reshape(1)])
            step = Step.of(totals.step, batch, names, lr, figures)
            self._settle(place)  # the one before
            self.pending = step
        else:
            values = figures.tolist()
            if all(map(math.isfinite, values)):
                self._update()
            self._account(
                Step(totals.step, batch, names, lr, torch.tensor([*values, float(self.model.temp.detach())])), place
            )
        self.optimiser.zero_grad(set_to_none=True)
        totals.samples += len(batch.rows)
        totals.step += 1

    def _update(self) -> None:
        self.optimiser.step()
        self.model.clamp_temp()

    def _settle(self, place: Path) -> None:
        """Account for the step whose figures were not read yet."""
        step, self.pending = self.pending, None
        if step is not None:
            self._account(step, place)

    def _account(self, step: "Step", place: Path) -> None:
        *losses, norm, temp = step.values()
        figures = {**self.backward.figures(step.names, losses), "grad_norm": norm}
        if all(map(math.isfinite, figures.values())):
            self.totals.spikes += health.is_spike(self.totals, figures["loss"], step.number)
            self.totals.figures.update(figures, lr=step.lr, temp=temp)
        else:
            self._skip_or_stop(step, figures, place)

    def _skip_or_stop(self, step: "Step", figures: dict[str, float], place: Path) -> None:
        """Leave a step whose figures are not finite out and count it, or stop.

        Raises:
            WorkError: naming the step, its losses and the file to replay it from.
        """
        totals, train = self.totals, self.train
        number, totals.skips = step.number + 1, totals.skips + 1
        names = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        if train.on_nan == "skip" and totals.skips <= train.max_skips:
            totals.figures = totals.figures or {"loss": math.inf}
            log_line.warning("phase %s: step %d left out, it is not finite (%s)", self.phase.name, number, names)
            return
        file = place / f"bad-step-{number}.json"
        if self.ranks.rank == 0:
            health.write_bad_batch(file, number, step.batch, self.source.clip_ids, figures)
        many = f" and {totals.skips - 1} before it were skipped" if train.on_nan == "skip" else ""
        raise WorkError(
            f"phase {self.phase.name}, step {number}: loss or gradients are not finite ({names}){many}; "
            f"its batch is in {file}; lower the lr, or set train.on_nan=skip"
        )

    def _report(self, log: Log) -> None:
        """The figures, to the curves and, with those of speed, to whoever follows the run."""
        totals, speed = self.totals, self.backward.speed
        totals.note(self.phase.name, totals.figures)
        counts = {"skipped": float(totals.skips), "spikes": float(totals.spikes)}
        log({**totals.figures, **counts, **speed.figures(self.encoder.device)}, totals.step)
        self.backward.speed = health.Speed()

    def _has_settled(self, log: Log) -> bool:
        """Validate when it is time; True when nothing better came for `patience` validations."""
        totals, every = self.totals, self.stage.validate_every
        if self.validate is None or not every or (totals.step % every and totals.step != self.phase.steps):
            return False
        with self.ranks.gathered(self.backward.wrapped):
            found = self.validate(self.encoder)
        totals.note(self.phase.name, {"val/r1": found})
        log({"val/r1": found}, totals.step)
        totals.looks_since_best += 1
        if found > totals.best:
            totals.best, totals.best_step, totals.looks_since_best = found, totals.step, 0
            if self.stage.keep == "best":
                self.best = {name: whole(p.detach()).cpu().clone() for name, p in self.named.items()}
        return self._stopped_early

    @property
    def _stopped_early(self) -> bool:
        return 0 < self.stage.patience <= self.totals.looks_since_best

    def _save_is_due(self, step: int, time_s: float, states: States) -> bool:
        """Rank 0 says when: it writes. While a state is being written the next one waits for a later step."""
        every, minutes = self.train.save_every_steps, self.train.save_every_min
        by_steps = 0 < every <= self.totals.step - step
        by_clock = minutes > 0 and time.monotonic() - time_s >= 60 * minutes
        return self.ranks.rank == 0 and not states.busy and (by_steps or by_clock)

    def _save(self, states: States) -> None:
        tensors = model_and_optimiser(self.named, self.optimiser)
        tensors.update({f"best/{name}": value for name, value in self.best.items()})
        tensors = self.ranks.gather(tensors)
        if self.ranks.rank == 0:
            figures = dict(vars(self.totals))  # not `asdict`: it copies every row of the curves
            states.save(self.totals.step, tensors, figures, figures.pop("curves"))

    def _resume(self, states: States) -> int:
        """The step of the newest state, which is put back; 0 where there is none."""
        found = states.latest()
        if found is None:
            return 0
        tensors, figures = found
        restore(self.named, self.optimiser, tensors)
        self.best = {name.removeprefix("best/"): value for name, value in tensors.items() if name.startswith("best/")}
        self.totals = Totals(**figures)
        self.cpu_s_before = self.totals.cpu_s
        log_line.info("phase %s: goes on after step %d", self.phase.name, self.totals.step)
        return self.totals.step
