"""The loop: one phase of s2 or clip, from the checkpoint before to the next.

A phase that is interrupted goes on from its last saved state and ends with the same bytes: batches are drawn anew up to
the step, whatever else is random is a function of the step (`draws`), and the state holds the rest (`state`, `tally`).
"""

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from ivcore import schemas
from ivcore.config import Phase, StageConfig, TrainConfig
from ivcore.data.loader import Captions, Features, normalise
from ivcore.data.tokenizer import Tokenizer
from ivcore.errors import WorkError
from ivcore.models import lora
from ivcore.models.base import VideoTextModel
from ivcore.models.freeze import apply_policy, digest, verify
from ivcore.steps import Log
from ivcore.store import Draft
from ivcore.train import begin, checkpoint
from ivcore.train.batches import Batch
from ivcore.train.draws import Draws
from ivcore.train.job import Job
from ivcore.train.objective import Inputs, Objective
from ivcore.train.optim import adamw, lr_factor
from ivcore.train.state import States, model_and_optimiser, restore
from ivcore.train.stop import until_sigterm
from ivcore.train.tally import Tally

LOG_EVERY = 10  # steps between figures
log_line = logging.getLogger("iv.train")


def fit(draft: Draft, job: Job, log: Log) -> None:
    """Train the phase and write the checkpoint into `draft`.

    Raises:
        WorkError: if gradients are not finite, or a frozen parameter moved.
    """
    train, phase = job.train, job.phase
    torch.set_num_threads(train.threads)
    device = checkpoint.device(train.device)
    captions = Captions(job.manifest)
    model, tokenizer = begin.models(job, captions)
    trained = apply_policy(model, phase.trainable)
    frozen = sorted(set(dict(model.named_parameters())) - set(trained))
    before = digest(model, frozen)
    model.to(device).train()
    source = begin.source(job)
    batches = begin.batches(job, captions, model, tokenizer, source, device)
    phase = batches.phase  # epochs counted out in steps
    loop = Loop(model, tokenizer, source, train, job.stage, phase, job.text_len, device)
    resumed = loop.run(batches, log, job.place)
    tally = loop.tally

    verify(model, phase.trainable)
    model.eval().cpu()
    after = digest(model, frozen)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    if phase.trainable == "clip_lora":
        lora.merge(model)  # type: ignore[arg-type]
    checkpoint.save(model, tokenizer, draft.path)
    schemas.write(draft.path / "curves.parquet", tally.curves, schemas.CURVES)
    draft.count(ok=tally.samples)
    speed = tally.samples / max(tally.seconds, 1e-9)
    draft.measured.update(train_s=round(tally.seconds, 3), videos_per_s=round(speed, 1), resumed_from=resumed)
    draft.facts.update(
        phase=phase.name,
        steps=tally.step,
        samples=tally.samples,
        text_len=job.text_len,
        trained_names=trained,
        params_total=sum(sizes.values()),
        params_trained=sum(sizes[n] for n in trained),
        digest_before=before,
        digest_after=after,
        vision_digest=digest(model, [n for n in sizes if n.startswith("vision_encoder.")]),
        train_gflop=round(tally.gflop, 3),
        condition={"vtc_negatives": phase.vtc_negatives, "batches": phase.batches, "vtc": phase.vtc, "vtm": phase.vtm},
    )
    if before != after:
        raise WorkError(f"{job.kind}/{phase.name}: a frozen parameter moved; this is a defect, please report it")
    draft.superseded.append(job.place)


class Loop:
    """The steps of a phase."""

    def __init__(
        self,
        model: VideoTextModel,
        tokenizer: Tokenizer,
        source: begin.Source,
        train: TrainConfig,
        stage: StageConfig,
        phase: Phase,
        text_len: int,
        device: torch.device,
    ) -> None:
        self.model, self.tokenizer, self.source = model, tokenizer, source
        self.train, self.stage, self.phase = train, stage, phase
        self.text_len, self.device, self.dtype = text_len, device, getattr(torch, train.dtype)
        self.objective = Objective(model, tokenizer, phase)
        self.optimiser = adamw(model, stage, phase)
        self.named = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.tally = Tally()

    def run(self, batches: Iterable[Batch], log: Log, place: Path) -> int:
        """Take every step that is left; returns the step it went on from.

        Raises:
            SystemExit: after SIGTERM; the state is saved then.
        """
        states = States(place, self.train.keep_states)
        resumed = self._resume(states)
        left = itertools.islice(batches, resumed, None)
        bar = tqdm(
            left, desc=f"fit {self.phase.name}", unit="step", initial=resumed, total=self.phase.steps, disable=None
        )
        self.model.clamp_temp()
        saved = time.monotonic()
        with contextlib.closing(states), _same_bytes(), torch.random.fork_rng(devices=[]), until_sigterm() as stop:
            for batch in bar:
                start = time.monotonic()
                self._step(batch, states)
                self.tally.seconds += time.monotonic() - start
                step = self.tally.step
                if step % LOG_EVERY == 0 or step == self.phase.steps:
                    self._note(log)
                    bar.set_postfix_str(f"loss {self.tally.figures['loss']:.3f}")
                if self._due(saved) and not states.busy and step < self.phase.steps:
                    self._save(states)
                    saved = time.monotonic()
                if stop.is_set():
                    self._save(states)
                    states.wait()
                    log_line.warning("phase %s: stopped after step %d, which is kept", self.phase.name, step)
                    break
        return resumed

    def _resume(self, states: States) -> int:
        found = states.latest()
        if found is None:
            return 0
        tensors, figures = found
        restore(self.named, self.optimiser, tensors)
        self.tally = Tally(**figures)
        log_line.info("phase %s: goes on after step %d", self.phase.name, self.tally.step)
        return self.tally.step

    def _due(self, saved: float) -> bool:
        every, minutes = self.train.save_every_steps, self.train.save_every_min
        by_steps = every > 0 and self.tally.step % every == 0
        return by_steps or (minutes > 0 and time.monotonic() - saved >= 60 * minutes)

    def _save(self, states: States) -> None:
        states.save(self.tally.step, model_and_optimiser(self.named, self.optimiser), self.tally.state())

    def _note(self, log: Log) -> None:
        """The figures, to the curves and to whoever follows the run."""
        step, figures = self.tally.step, self.tally.figures
        log(figures, step)
        self.tally.curves += [
            {"phase": self.phase.name, "step": step, "name": name, "value": value} for name, value in figures.items()
        ]

    def _step(self, batch: Batch, states: States) -> None:
        step, tally = self.tally.step, self.tally
        for group in self.optimiser.param_groups:
            group["lr"] = self.stage.lr * self.phase.lr_scale * lr_factor(self.phase, step)
        losses = self._backward(batch, step)
        norm = torch.nn.utils.clip_grad_norm_(self.named.values(), self.stage.grad_clip or math.inf)
        if not torch.isfinite(norm):
            names = ", ".join(f"{n} {v:.3g}" for n, v in losses.items())
            raise WorkError(
                f"phase {self.phase.name}, step {step + 1}: gradients are not finite ({names}); lower the lr"
            )
        states.wait_copied()
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.model.clamp_temp()
        lr = self.optimiser.param_groups[0]["lr"]
        tally.figures.update(losses, lr=lr, grad_norm=float(norm), temp=self.model.temp.item())
        tally.samples += len(batch.rows)
        tally.step += 1

    def _backward(self, batch: Batch, step: int) -> dict[str, float]:
        """Forward and backward of a batch; the losses by name."""
        full = step % self.phase.loss_every == 0
        draws = Draws(self.train.seed, self.phase.name, step, self.text_len)
        draws.noise()
        inputs = self._inputs(batch)
        video = inputs.tokens if inputs.video is None else inputs.video
        kind = f"{list(video.shape)}/{list(inputs.ids.shape)}/{full}"  # type: ignore[union-attr]
        if kind in self.tally.cost:
            losses, total = self._losses(inputs, draws, full)
        else:  # arithmetic is counted on the first step of each kind
            with FlopCounterMode(display=False) as counter:
                losses, total = self._losses(inputs, draws, full)
            self.tally.cost[kind] = counter.get_total_flops() / 1e9
        self.tally.gflop += self.tally.cost[kind]
        return {"loss": total.item(), **{f"loss/{name}": loss.item() for name, loss in losses.items()}}

    def _losses(self, inputs: Inputs, draws: Draws, full: bool) -> tuple[dict[str, Tensor], Tensor]:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            losses = self.objective(inputs, draws, full)
        total = self.objective.total(losses)
        total.backward()
        return losses, total

    def _inputs(self, batch: Batch) -> Inputs:
        ids, mask = self.tokenizer.encode(batch.captions, self.text_len)
        video = tokens = None
        if isinstance(self.source, Features):
            tokens = self.source.tokens(batch.rows).float().to(self.device)
        else:
            video = normalise(self.source.batch(batch.rows).to(self.device))
        samples = torch.tensor(batch.rows)
        to = self.device
        return Inputs(video, tokens, ids.to(to), mask.to(to), samples.to(to), batch.families.to(to))


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
