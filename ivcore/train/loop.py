"""The loop: one phase of s2 or clip, from the checkpoint before to the next."""

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from ivcore import schemas
from ivcore.config import ModelConfig, Phase, StageConfig, TrainConfig
from ivcore.data.loader import Captions, Features, Frames, normalise
from ivcore.data.tokenizer import Tokenizer
from ivcore.errors import UserError, WorkError
from ivcore.models import S2Model, build_s2, clip_config, clip_from_s2, lora
from ivcore.models.base import VideoTextModel
from ivcore.models.freeze import apply_policy, digest, verify
from ivcore.steps import Log
from ivcore.store import Artifact, Draft, Store
from ivcore.train import checkpoint
from ivcore.train.batches import Batch, Batches, nearest
from ivcore.train.objective import Inputs, clip_losses, s2_losses
from ivcore.train.optim import adamw, lr_factor

LOG_EVERY = 10  # steps between figures


def fit(
    draft: Draft,
    store: Store,
    kind: str,
    model_config: ModelConfig,
    train: TrainConfig,
    stage: StageConfig,
    phase: Phase,
    manifest: Artifact,
    inputs: Artifact,
    init: Artifact | None,
    log: Log,
) -> None:
    """Train `phase` and write the checkpoint into `draft`.

    Args:
        kind: s2 or clip.
        inputs: frames, or the features of the frozen trunk.
        init: checkpoint to go on from; None starts s2 anew.
    """
    torch.set_num_threads(train.threads)
    device = checkpoint.device(train.device)
    captions = Captions(manifest)
    model, tokenizer = _start(kind, model_config, train, phase, captions, init)
    if phase.trainable == "clip_lora":
        lora.add(model, train.seed)
    trained = apply_policy(model, phase.trainable)
    frozen = sorted(set(dict(model.named_parameters())) - set(trained))
    before = digest(model, frozen)
    model.to(device).train()

    source = Features(inputs) if inputs.kind == "features" else Frames(store, inputs)
    batches = Batches(captions, source.clip_ids, phase, stage.batch_size, train.seed)
    text_len = model_config.s2_text_len if kind == "s2" else model_config.clip_text_len
    if phase.batches == "neighbours":
        batches.neighbours = _confused(model, tokenizer, source, batches, text_len, device)
    run = _Run(model, tokenizer, source, stage, phase, train, text_len, device)
    curves = run.steps(batches, log)

    verify(model, phase.trainable)
    model.eval().cpu()
    after = digest(model, frozen)
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    if phase.trainable == "clip_lora":
        lora.merge(model)
    checkpoint.save(model, tokenizer, draft.path)
    schemas.write(draft.path / "curves.parquet", curves, schemas.CURVES)
    draft.count(ok=run.samples)
    draft.measured.update(train_s=round(run.seconds, 3), videos_per_s=round(run.samples / max(run.seconds, 1e-9), 1))
    draft.facts.update(
        phase=phase.name,
        steps=phase.steps,
        samples=run.samples,
        text_len=text_len,
        trained_names=trained,
        params_total=sum(sizes.values()),
        params_trained=sum(sizes[n] for n in trained),
        digest_before=before,
        digest_after=after,
        vision_digest=digest(model, [n for n in sizes if n.startswith("vision_encoder.")]),
        train_gflop=round(run.gflop, 3),
        condition={"vtc_negatives": phase.vtc_negatives, "batches": phase.batches, "vtc": phase.vtc, "vtm": phase.vtm},
    )
    if draft.facts["digest_before"] != draft.facts["digest_after"]:
        raise WorkError(f"{kind}/{phase.name}: a frozen parameter moved; this is a defect, please report it")


def _start(
    kind: str, config: ModelConfig, train: TrainConfig, phase: Phase, captions: Captions, init: Artifact | None
) -> tuple[VideoTextModel, Tokenizer]:
    """Model and tokenizer a phase begins with; a tokenizer is trained once, on training captions alone."""
    if init is None:
        if kind != "s2":
            raise UserError("clip starts from an s2 checkpoint; none was given")
        tokenizer = Tokenizer.train(_texts(captions, ("en",), ("short",)), config.s2_vocab, "bert")
        return build_s2(config.size, tokenizer.vocab_size, train.seed), tokenizer
    model, tokenizer = checkpoint.load(init.path)
    if kind == "clip" and isinstance(model, S2Model):
        texts = _texts(captions, phase.languages, ("short", "long"))
        tokenizer = Tokenizer.train(texts, config.clip_vocab, "llama")
        model = clip_from_s2(model, clip_config(config.size, tokenizer.vocab_size, train.seed), train.seed)
    return model, tokenizer


def _texts(captions: Captions, languages: Sequence[str], text_classes: Sequence[str]) -> list[str]:
    """Training captions of these languages and lengths."""
    found = [t for lang in languages for c in text_classes for _, _, t in captions.texts(lang, c, "train")]
    if not found:
        raise UserError(f"no training caption in {', '.join(languages)} ({', '.join(text_classes)}) to train words on")
    return found


class _Run:
    """The steps of a phase and what they add up to."""

    def __init__(
        self,
        model: VideoTextModel,
        tokenizer: Tokenizer,
        source: Features | Frames,
        stage: StageConfig,
        phase: Phase,
        train: TrainConfig,
        text_len: int,
        device: torch.device,
    ) -> None:
        self.model, self.tokenizer, self.source, self.stage, self.phase = model, tokenizer, source, stage, phase
        self.text_len, self.device, self.dtype = text_len, device, getattr(torch, train.dtype)
        self.draw = torch.Generator().manual_seed(train.seed * 1000 + sum(phase.name.encode()))
        self.optimiser = adamw(model, stage, phase)
        self.parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.samples, self.seconds, self.gflop = 0, 0.0, 0.0
        self._cost: dict[str, float] = {}

    def steps(self, batches: Batches, log: Log) -> list[dict[str, Any]]:
        """Run every step; returns the rows of the curves."""
        curves: list[dict[str, Any]] = []
        figures: dict[str, float] = {}  # a loss that is not taken at every step keeps its last value
        start = time.monotonic()
        bar = tqdm(batches, total=self.phase.steps, desc=f"fit {self.phase.name}", unit="step", disable=None)
        # Stochastic depth and dropout draw from the global generator.
        with _same_bytes(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.draw.initial_seed())
            for step, batch in enumerate(bar):
                figures.update(self._step(step, batch))
                self.samples += len(batch.rows)
                if (step + 1) % LOG_EVERY == 0 or step + 1 == self.phase.steps:
                    log(figures, step + 1)
                    bar.set_postfix_str(f"loss {figures['loss']:.3f}")
                    curves += [
                        {"phase": self.phase.name, "step": step + 1, "name": n, "value": v} for n, v in figures.items()
                    ]
        self.seconds = time.monotonic() - start
        return curves

    def _step(self, step: int, batch: Batch) -> Mapping[str, float]:
        full = step % self.phase.loss_every == 0
        for group in self.optimiser.param_groups:
            group["lr"] = self.stage.lr * self.phase.lr_scale * lr_factor(self.phase, step)
        self.model.clamp_temp()
        inputs = self._inputs(batch)
        cost = f"{batch.kind}/{full}"
        if cost in self._cost:
            losses = self._backward(inputs, full)
        else:  # arithmetic is counted on the first step of each kind
            with FlopCounterMode(display=False) as counter:
                losses = self._backward(inputs, full)
            self._cost[cost] = counter.get_total_flops() / 1e9
        self.gflop += self._cost[cost]
        limit = self.stage.grad_clip or math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, limit)
        if not torch.isfinite(norm):
            names = ", ".join(f"{n} {v:.3g}" for n, v in losses.items())
            raise WorkError(
                f"phase {self.phase.name}, step {step + 1}: gradients are not finite ({names}); lower the lr"
            )
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        lr = self.optimiser.param_groups[0]["lr"]
        return {**losses, "lr": lr, "grad_norm": float(norm), "temp": self.model.temp.item()}

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

    def _backward(self, inputs: Inputs, full: bool) -> dict[str, float]:
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            if isinstance(self.model, S2Model):
                losses = s2_losses(self.model, inputs, self.phase, full, self.tokenizer, self.draw)
            else:
                losses = clip_losses(self.model, inputs, self.phase)  # type: ignore[arg-type]
        total = torch.stack([getattr(self.phase, name) * loss for name, loss in losses.items()]).sum()
        total.backward()
        return {"loss": total.item(), **{f"loss/{name}": loss.item() for name, loss in losses.items()}}


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


@torch.no_grad()
def _confused(
    model: VideoTextModel,
    tokenizer: Tokenizer,
    source: Features | Frames,
    batches: Batches,
    text_len: int,
    device: torch.device,
) -> dict[int, Any]:
    """Neighbours by the model's own contrast, on the training clips, before the phase begins."""
    if not isinstance(model, S2Model):
        raise UserError("batches of neighbours are made for s2 phases; clip phases take random or families")
    kind = next(iter(batches.texts))
    rows = sorted(batches.texts[kind])
    model.eval()
    video, text = [], []
    for start in range(0, len(rows), 256):
        part = rows[start : start + 256]
        if isinstance(source, Features):
            pooled = model.pool(source.tokens(part).float().to(device))
        else:
            pooled = model.encode_video(normalise(source.batch(part).to(device)))[1]
        ids, mask = tokenizer.encode([batches.texts[kind][r][0] for r in part], text_len)
        states = model.encode_text(ids.to(device), mask.to(device))
        video.append(F.normalize(model.project_video(pooled).float(), dim=-1).cpu())
        text.append(F.normalize(model.project_text(states).float(), dim=-1).cpu())
    model.train()
    return nearest(torch.cat(video), torch.cat(text), rows)
