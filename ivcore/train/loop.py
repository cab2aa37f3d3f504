"""The loop: one phase of s2 or clip, batch by batch.

A phase that is interrupted goes on from its last saved state and ends with the same bytes: batches are drawn anew up to
the step, whatever else is random is a function of the step (`draws`), and the state holds the rest (`state`, `tally`).
"""

import contextlib
import functools
import itertools
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from ivcore.config import Phase, StageConfig, TrainConfig
from ivcore.errors import UserError, WorkError
from ivcore.features.reader import Features
from ivcore.models.base import VideoTextModel
from ivcore.retrieval.embed import Encoder
from ivcore.store.log import Log
from ivcore.text.tokenizer import Tokenizer
from ivcore.train import health
from ivcore.train.batches import Batch
from ivcore.train.frozen_texts import FrozenTexts
from ivcore.train.gradient_cache import cached_backward
from ivcore.train.objective import Inputs, Objective
from ivcore.train.optimizer import adamw, set_lr
from ivcore.train.parallel import Ranks, whole
from ivcore.train.random_draws import Draws
from ivcore.train.setup import Source
from ivcore.train.state import States, model_and_optimiser, restore
from ivcore.train.stop import until_sigterm
from ivcore.train.totals import Tally
from ivcore.video.frames import normalise

LOG_EVERY = 10  # steps between figures
Look = Callable[[Encoder], float]  # R@1 on the validation split
log_line = logging.getLogger("iv.train")


class Loop:
    """The steps of a phase; `tally` and the model are what comes of them."""

    def __init__(
        self,
        model: VideoTextModel,
        tokenizer: Tokenizer,
        source: Source,
        train: TrainConfig,
        stage: StageConfig,
        phase: Phase,
        text_len: int,
        device: torch.device,
        ranks: Ranks | None = None,
        look: Look | None = None,
    ) -> None:
        self.model, self.tokenizer, self.source = model, tokenizer, source
        self.train, self.stage, self.phase = train, stage, phase
        self.text_len, self.device, self.dtype = text_len, device, getattr(torch, train.dtype)
        self.ranks, self.look = ranks or Ranks(), look
        self.objective = Objective(model, tokenizer, phase, train.vtc_gradient)
        self.chunk = stage.grad_cache_chunk if phase.vtc else 0  # without contrast there is nothing to cache
        if self.chunk and (stage.accumulate > 1 or self.ranks.sharded):
            raise UserError("grad_cache_chunk goes with accumulate = 1 and without fsdp2; choose one of them")
        self.wrapped = self.objective if self.chunk else self.ranks.wrap(self.objective, device)
        self.texts: FrozenTexts | None = None  # set where the text tower stands still
        self.optimiser = adamw(model, stage, phase)
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.best: dict[str, Tensor] = {}  # the trained parameters at the best look, where they are to be kept
        self.tally = Tally()
        self.cpu_s_before = 0.0  # of the processes that this one goes on from

    def run(self, batches: Iterable[Batch], log: Log, place: Path) -> int:
        """Take every step that is left; returns the step it went on from.

        Raises:
            SystemExit: after SIGTERM; the state is saved then.
            WorkError: if a loss or gradient is no number and may not be skipped.
            UserError: if a batch cannot be divided among ranks and parts.
        """
        states = States(place, self.train.keep_states)
        resumed = self._resume(states)
        left = itertools.islice(batches, resumed, None)
        title, hidden = f"fit {self.phase.name}", None if self.ranks.rank == 0 else True
        bar = tqdm(left, desc=title, unit="step", initial=resumed, total=self.phase.steps, disable=hidden)
        self.model.clamp_temp()
        saved, self.speed = (resumed, time.monotonic()), health.Speed.now()
        with contextlib.closing(states), _same_bytes(), torch.random.fork_rng(devices=[]), until_sigterm() as stop:
            for batch in bar:
                start, cpu = time.monotonic(), time.process_time()
                self._step(batch, states, place)
                step = self.tally.step
                if step % LOG_EVERY == 0 or step == self.phase.steps:
                    self._note(log)
                    bar.set_postfix_str(f"loss {self.tally.figures['loss']:.3f}")
                done = self._look(log) or step >= self.phase.steps
                self.tally.seconds += time.monotonic() - start
                here = self.ranks.count // self.train.nodes  # each has as much to do
                self.tally.cpu_s += (time.process_time() - cpu) * here
                asked, due = self.ranks.any(stop.is_set(), self._due(saved, states), device=self.device)
                if asked or (due and not done):
                    self._save(states)
                    saved = step, time.monotonic()
                if asked:
                    states.wait()
                    log_line.warning("phase %s: stopped after step %d, which is kept", self.phase.name, step)
                if asked or done:
                    break
        if self.best:
            restore(self.named, self.optimiser, {f"model/{name}": value for name, value in self.best.items()})
        return resumed

    def _resume(self, states: States) -> int:
        found = states.latest()
        if found is None:
            return 0
        tensors, figures = found
        restore(self.named, self.optimiser, tensors)
        self.best = {name.removeprefix("best/"): value for name, value in tensors.items() if name.startswith("best/")}
        self.tally = Tally(**figures)
        self.cpu_s_before = self.tally.cpu_s
        log_line.info("phase %s: goes on after step %d", self.phase.name, self.tally.step)
        return self.tally.step

    def _due(self, saved: tuple[int, float], states: States) -> bool:
        """Rank 0 says when: it writes. While a state is being written the next one waits for a later step."""
        every, minutes = self.train.save_every_steps, self.train.save_every_min
        by_steps = 0 < every <= self.tally.step - saved[0]
        by_clock = minutes > 0 and time.monotonic() - saved[1] >= 60 * minutes
        return self.ranks.rank == 0 and not states.busy and (by_steps or by_clock)

    def _save(self, states: States) -> None:
        tensors = model_and_optimiser(self.named, self.optimiser)
        tensors.update({f"best/{name}": value for name, value in self.best.items()})
        if self.ranks.sharded:
            tensors = {name: whole(value) for name, value in tensors.items()}
        if self.ranks.rank == 0:
            states.save(self.tally.step, tensors, self.tally.state())

    def _note(self, log: Log) -> None:
        """The figures, to the curves and, with those of speed, to whoever follows the run."""
        figures = {**self.tally.figures, "skipped": float(self.tally.skips), "spikes": float(self.tally.spikes)}
        self._curve(self.tally.figures)
        log({**figures, **self.speed.figures(self.device)}, self.tally.step)
        self.speed = health.Speed.now()

    def _curve(self, figures: dict[str, float]) -> None:
        place = {"phase": self.phase.name, "step": self.tally.step}
        self.tally.curves += [{**place, "name": name, "value": value} for name, value in figures.items()]

    def _look(self, log: Log) -> bool:
        """Validate when it is time; True when nothing better came for `patience` looks."""
        tally, every = self.tally, self.stage.validate_every
        if self.look is None or not every or (tally.step % every and tally.step != self.phase.steps):
            return False
        encoder = Encoder(self.model, self.tokenizer, self.text_len, self.device, self.dtype)
        with self.ranks.gathered(self.wrapped):
            found = {"val/r1": self.look(encoder)}
        self._curve(found)
        log(found, tally.step)
        tally.looks_since_best += 1
        if found["val/r1"] > tally.best:
            tally.best, tally.best_step, tally.looks_since_best = found["val/r1"], tally.step, 0
            if self.stage.keep == "best":
                self.best = {name: whole(p.detach()).cpu().clone() for name, p in self.named.items()}
        return 0 < self.stage.patience <= tally.looks_since_best

    def _step(self, batch: Batch, states: States, place: Path) -> None:
        tally = self.tally
        lr = set_lr(self.optimiser, self.stage, self.phase, tally.step)
        figures = self._backward(batch)
        figures["grad_norm"] = self.ranks.clip(self.named.values(), self.stage.grad_clip)
        states.wait_copied()
        if health.finite(figures):
            tally.spikes += health.is_spike(tally, figures["loss"])
            self.optimiser.step()
            self.model.clamp_temp()
            tally.figures.update(figures, lr=lr, temp=float(self.model.temp.detach()))
        else:
            self._bad(batch, figures, place)
        self.optimiser.zero_grad(set_to_none=True)
        tally.samples += len(batch.rows)
        tally.step += 1

    def _bad(self, batch: Batch, figures: dict[str, float], place: Path) -> None:
        """Leave the step out and count it, or stop.

        Raises:
            WorkError: naming the step, its losses and the file to replay it from.
        """
        tally, train = self.tally, self.train
        step, tally.skips = tally.step + 1, tally.skips + 1
        names = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        if train.on_nan == "skip" and tally.skips <= train.max_skips:
            tally.figures = tally.figures or {"loss": float("inf")}
            log_line.warning("phase %s: step %d left out, it is not finite (%s)", self.phase.name, step, names)
            return
        file = place / f"bad-step-{step}.json"
        if self.ranks.rank == 0:
            health.keep_batch(file, step, batch, self.source.clip_ids, figures)
        many = f" and {tally.skips - 1} before it were skipped" if train.on_nan == "skip" else ""
        raise WorkError(
            f"phase {self.phase.name}, step {step}: loss or gradients are not finite ({names}){many}; "
            f"its batch is in {file}; lower the lr, or set train.on_nan=skip"
        )

    def _backward(self, batch: Batch) -> dict[str, float]:
        """Forward and backward of this rank's rows, part by part; the losses of the whole batch by name."""
        own = len(batch.rows) // self.ranks.count
        pieces = -(-own // self.chunk) if self.chunk else self.stage.accumulate  # of this rank's rows
        if len(batch.rows) % (pieces * self.ranks.count):
            raise UserError(
                f"phase {self.phase.name}: a batch of {len(batch.rows)} clips cannot be divided by train.ranks "
                f"{self.ranks.count} times {pieces} parts; choose another batch_size"
            )
        full = self.tally.step % self.phase.loss_every == 0
        draws = [self._draws(i, pieces) for i in range(pieces)]
        if self.chunk:
            sums = self._counted(f"{len(batch.rows)} cached", full, lambda: self._cached(batch, draws, full))
            self.ranks.average(self.named.values())
        else:
            sums = {}
            for one in draws:
                for name, loss in self._plain(batch, one, full, last=one is draws[-1]).items():
                    sums[name] = sums.get(name, 0.0) + loss.detach() / pieces
            self.ranks.settle(self.model)
        values = self.ranks.mean(torch.stack([v.float() for v in sums.values()])).tolist()
        figures = {f"loss/{name}": value for name, value in zip(sums, values, strict=True)}
        return {"loss": sum(getattr(self.phase, n) * figures[f"loss/{n}"] for n in sums), **figures}

    def _draws(self, piece: int, pieces: int) -> Draws:
        part, parts = self.ranks.rank * pieces + piece, self.ranks.count * pieces
        return Draws(self.train.seed, self.phase.name, self.tally.step, self.text_len, part, parts)

    def _plain(self, batch: Batch, draws: Draws, full: bool, last: bool) -> dict[str, Tensor]:
        """The losses of a part; its share of the gradient is added to the parameters'."""
        draws.noise()
        inputs = self._inputs(batch, draws)

        def work() -> dict[str, Tensor]:
            with self._arithmetic():
                losses: dict[str, Tensor] = self.wrapped(inputs, draws, full)
            (self.objective.total(losses) / self.stage.accumulate).backward()
            return losses

        video = inputs.tokens if inputs.video is None else inputs.video
        with self.ranks.hold(self.wrapped, last):
            return self._counted(f"{list(video.shape)}/{list(inputs.ids.shape)}", full, work)  # type: ignore[union-attr]

    def _cached(self, batch: Batch, draws: list[Draws], full: bool) -> dict[str, Tensor]:
        """The same with the contrast of all parts together, in the memory of one."""
        samples = torch.tensor(self._own(batch.rows)).to(self.device)
        families = self._own(batch.families).to(self.device)

        def encode(one: Draws) -> tuple[tuple[Tensor, ...], Any]:
            one.noise()
            inputs = self._inputs(batch, one)
            with self._arithmetic():
                vectors, *rest = self.objective.encode(inputs, one)
            return vectors, (inputs, *rest)

        def local(one: Draws, vectors: tuple[Tensor, ...], rest: Any) -> dict[str, Tensor]:
            inputs, *between = rest
            with self._arithmetic():
                losses = self.objective.fused(inputs, one, vectors, *between)
            return {name: loss / len(draws) for name, loss in losses.items()}

        fused = local if full and self.objective.fuses else None
        weights = {name: getattr(self.phase, name) for name in ("vtc", "vtm", "mlm")}
        contrast = functools.partial(self.objective.contrast, samples=samples, families=families)
        return cached_backward(encode, draws, contrast, fused, weights)

    def _counted(self, shape: str, full: bool, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Do the work; its arithmetic is counted the first time that a batch of this shape comes."""
        kind = f"{shape}/{full}"
        if kind in self.tally.cost:
            found = work()
        else:
            # Counted as written: a compiled block that is first met by the counter would stay uncompiled.
            plainly = torch.compiler.set_stance("force_eager") if self.train.compile else contextlib.nullcontext()
            with plainly, FlopCounterMode(display=False) as counter:
                found = work()
            self.tally.cost[kind] = counter.get_total_flops() / 1e9
        self.tally.gflop += self.tally.cost[kind] * self.ranks.count
        return found

    def _arithmetic(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32)

    def _own(self, rows: Any) -> Any:
        """What this rank has of a batch."""
        size = len(rows) // self.ranks.count
        return rows[self.ranks.rank * size : (self.ranks.rank + 1) * size]

    def _inputs(self, batch: Batch, draws: Draws) -> Inputs:
        """The rows of the part that `draws` belongs to."""
        size = len(batch.rows) // draws.parts
        own, begun = slice(draws.part * size, (draws.part + 1) * size), time.monotonic()
        rows, views = batch.rows[own], batch.views[own]
        ids, mask = self.tokenizer.encode(batch.captions[own], self.text_len)
        video = tokens = None
        if isinstance(self.source, Features):
            tokens = self.source.tokens(rows, views).to(self.device, getattr(torch, self.train.weights))
        else:
            video = normalise(self.source.batch(rows, views).to(self.device))
        self.speed.waited += time.monotonic() - begun
        times = 2 if self.chunk else 1  # that a clip comes by
        self.speed.videos += size * self.ranks.count / times
        self.speed.tokens += int(mask.sum()) * self.ranks.count / times
        to = self.device
        text = None if self.texts is None else self.texts(batch.captions[own]).to(to)
        samples, families = torch.tensor(rows), batch.families[own]
        return Inputs(video, tokens, ids.to(to), mask.to(to), samples.to(to), families.to(to), text)


@contextlib.contextmanager
def _same_bytes() -> Iterator[None]:
    """Sums in one order: with several threads a gathered tensor's gradient is otherwise added up in any."""
    before, fill = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)  # where CUDA has no such form it says so and goes on
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill
