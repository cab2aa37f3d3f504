"""Forward and backward of one batch: this rank's rows, part by part, with their arithmetic counted."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ivcore.config import Phase, StageConfig, TrainConfig
from ivcore.errors import UserError
from ivcore.features.reader import Features
from ivcore.losses.mlm import NO_TARGET
from ivcore.models.s2 import S2Model
from ivcore.retrieval.embed import Encoder
from ivcore.train.batches import Batch, sample_ids
from ivcore.train.frozen_texts import FrozenTexts
from ivcore.train.gradient_cache import cached_backward
from ivcore.train.health import Speed
from ivcore.train.objective import Inputs, Objective, Words
from ivcore.train.parallel import Ranks
from ivcore.train.pools import pieces
from ivcore.train.random_draws import Draws
from ivcore.train.source import Source
from ivcore.train.totals import Totals
from ivcore.video.frames import normalise

LENGTHS = 8  # padded texts are a multiple of so many tokens long


class Backward:
    """Adds the gradient of a batch to the parameters'; the model of `encoder` may be sharded by it."""

    def __init__(
        self, encoder: Encoder, source: Source, train: TrainConfig, stage: StageConfig, phase: Phase, ranks: Ranks
    ) -> None:
        self.encoder, self.source, self.train, self.stage = encoder, source, train, stage
        self.phase, self.ranks = phase, ranks
        self.chunk = stage.grad_cache_chunk if phase.vtc else 0  # without contrast there is nothing to cache
        self.accumulate = stage.accumulate
        if self.chunk and (stage.accumulate > 1 or ranks.sharded):
            raise UserError("grad_cache_chunk goes with accumulate = 1 and without fsdp2; choose one of them")
        packed = encoder.device.type == "cpu"
        self.objective = Objective(encoder.model, encoder.tokenizer, phase, train.vtc_gradient, packed)
        self.wrapped = self.objective if self.chunk else ranks.wrap(self.objective, encoder.device, encoder.dtype)
        self.texts: FrozenTexts | None = None  # set where the text tower stands still
        self.speed = Speed()

    def draws(self, batch: Batch, step: int) -> list[Draws]:
        """What chance decides in each part of this rank's rows.

        Raises:
            UserError: if the batch cannot be divided among ranks and parts.
        """
        own = pieces(len(batch.rows), batch.kind, self.ranks.count, self.stage, self.phase)  # of this rank's rows
        parts = own * self.ranks.count
        first, seed, text_len = self.ranks.rank * own, self.train.seed, self.encoder.text_len
        return [Draws(seed, self.phase.name, step, text_len, part, parts) for part in range(first, first + own)]

    def __call__(self, batch: Batch, totals: Totals, ready: list[Inputs] | None = None) -> tuple[list[str], Tensor]:
        """Names of the losses and their values over the whole batch, on the device: nothing here waits for it.

        Args:
            ready: the inputs of the parts, if they were made ahead.
        """
        full = self.is_full(totals.step)
        draws = self.draws(batch, totals.step)
        if self.chunk:
            kind = f"{len(batch.rows)} cached/{batch.kind}/{full}"
            sums = self._counted(kind, totals, lambda: self._cached(batch, draws, full))
            self.ranks.average(self.objective.parameters())
        else:
            sums = {}
            for one, inputs in zip(draws, ready or self.parts(batch, draws)):
                one.seed_dropout()
                for name, loss in self._plain(inputs, one, full, totals, last=one is draws[-1]).items():
                    sums[name] = sums.get(name, 0.0) + loss.detach() / len(draws)
            if self.ranks.sharded:
                self.ranks.average([self.objective.model.temp])  # FSDP2 has no shards of a number
        return list(sums), self.ranks.mean(torch.stack([v.float() for v in sums.values()]))

    def figures(self, names: list[str], values: list[float]) -> dict[str, float]:
        """The losses by name, and `loss`, their weighted sum."""
        found = {f"loss/{name}": value for name, value in zip(names, values)}
        return {"loss": sum(getattr(self.phase, name) * found[f"loss/{name}"] for name in names), **found}

    def is_full(self, step: int) -> bool:
        """Whether matching and masked words are part of this step."""
        return step % self.phase.loss_every == 0

    def _plain(self, inputs: Inputs, draws: Draws, full: bool, totals: Totals, last: bool) -> dict[str, Tensor]:
        """The losses of a part; its share of the gradient is added."""

        def work() -> dict[str, Tensor]:
            with self.encoder.arithmetic():
                losses: dict[str, Tensor] = self.wrapped(inputs, draws, full)
            torch.autograd.backward(self.objective.total(losses) / self.accumulate)
            return losses

        with self.ranks.hold_gradients(self.wrapped, last):
            return self._counted(f"{list(inputs.video.shape)}/{list(inputs.ids.shape)}/{full}", totals, work)

    def _cached(self, batch: Batch, draws: list[Draws], full: bool) -> dict[str, Tensor]:
        """The same with the contrast of all parts together, in the memory of one."""
        size, to = len(batch.rows) // draws[0].parts, self.encoder.device
        own = slice(draws[0].rows(size).start, draws[-1].rows(size).stop)
        samples = torch.tensor(sample_ids(batch.rows, batch.captions)[own]).to(to)
        families, asked = batch.families[own].to(to), self._asked(batch, draws)

        def encode(one: Draws) -> tuple[tuple[Tensor, ...], Any]:
            one.seed_dropout()
            inputs = self.inputs(batch, one, asked)
            with self.encoder.arithmetic():
                vectors, *rest = self.objective.encode(inputs)
            return vectors, (inputs, *rest)

        def fused(one: Draws, vectors: tuple[Tensor, ...], rest: Any) -> dict[str, Tensor]:
            inputs, *between = rest
            with self.encoder.arithmetic():
                losses = self.objective.fused(inputs, one, vectors, *between)
            return {name: loss / len(draws) for name, loss in losses.items()}

        local = fused if full and self.objective.fuses else None
        contrast = functools.partial(self.objective.contrast, samples=samples, families=families)
        return cached_backward(encode, draws, contrast, self.objective.total, local)

    def _counted(self, kind: str, totals: Totals, work: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """Do the work; its arithmetic is counted the first time that a batch of this kind comes."""
        if kind in totals.cost:
            found = work()
        else:
            # Counted as written: a compiled block that is first met by the counter would stay uncompiled.
            plainly = (
                torch.compiler.set_stance("force_eager")
                if self.train.compiles(self.encoder.device.type)
                else contextlib.nullcontext()
            )
            with plainly, FlopCounterMode(display=False) as counter:
                found = work()
            totals.cost[kind] = counter.get_total_flops() / 1e9
        totals.gflop += totals.cost[kind] * self.ranks.count
        return found

    def parts(self, batch: Batch, draws: list[Draws]) -> Iterator[Inputs]:
        """The inputs of each part, one after the other."""
        asked = self._asked(batch, draws)
        return (self.inputs(batch, one, asked) for one in draws)

    def _asked(self, batch: Batch, draws: list[Draws]) -> int:
        """Masked words in all parts of this rank together; 0 where they need not be known, since it has one part."""
        if len(draws) == 1 or not self._masks_words(draws[0].step):
            return 0
        whole = dataclasses.replace(draws[0], part=self.ranks.rank, parts=self.ranks.count)
        captions = batch.captions[whole.rows(len(batch.rows) // self.ranks.count)]
        ids, mask = self.encoder.tokenizer.encode(captions, self.encoder.text_len)
        return int((whole.masked_words(ids, mask, self.encoder.tokenizer)[1] != NO_TARGET).sum())

    def _masks_words(self, step: int) -> bool:
        return self.objective.fuses and self.phase.mlm > 0 and self.is_full(step)

    def inputs(self, batch: Batch, draws: Draws, asked: int = 0) -> Inputs:
        """The rows of the part that `draws` belongs to, with all that the host has to decide of them.

        Args:
            asked: masked words in all parts of this rank; 0: there is this one alone.
        """
        own, begun, to = draws.rows(len(batch.rows) // draws.parts), time.monotonic(), self.encoder.device
        rows, views, captions = batch.rows[own], batch.views[own], batch.captions[own]
        tokenizer, model = self.encoder.tokenizer, self.encoder.model
        ids, mask = tokenizer.encode(captions, self.encoder.text_len)
        if not self.objective.packed:  # few lengths, so that shapes repeat
            more = min(-ids.shape[1] % LENGTHS, self.encoder.text_len - ids.shape[1])
            ids, mask = (F.pad(t, (0, more)) for t in (ids, mask))
        kept = words = None
        if isinstance(self.source, Features):
            video = _sent(self.source.tokens(rows, views), to).to(getattr(torch, self.train.weights))
        else:
            frames = self.source.batch(rows, views)
            is_image = batch.kind.startswith("image")
            dropped = self.phase.image_token_drop if is_image else self.phase.token_drop
            if dropped and isinstance(model, S2Model):
                num_patches = model.num_patches // (model.vision_encoder.shape.grid[0] if frames.shape[1] == 1 else 1)
                kept = _sent(draws.kept_tokens(len(rows), num_patches, dropped), to)
            video = normalise(_sent(frames, to))
        if self._masks_words(draws.step):
            corrupted, labels = draws.masked_words(ids, mask, tokenizer)
            places = (labels.flatten() != NO_TARGET).nonzero()[:, 0]
            num, own_parts = len(places), draws.parts // self.ranks.count
            corrupted, places, targets = (_sent(t, to) for t in (corrupted, places, labels.flatten()[places]))
            words = Words(corrupted, places, targets, num * own_parts / asked if asked else 1.0, asked or num)
        times = 2 if self.chunk else 1  # that a clip comes by
        self.speed.waited += time.monotonic() - begun
        self.speed.videos += len(rows) * self.ranks.count / times
        self.speed.tokens += int(mask.numpy().sum()) * self.ranks.count / times
        text = None if self.texts is None else _sent(self.texts(captions), to)
        same = sample_ids(batch.rows, batch.captions)[own]
        samples, families = _sent(torch.tensor(same), to), _sent(batch.families[own], to)
        matches = len(set(same)) > 1
        return Inputs(video, _sent(ids, to), _sent(mask, to), samples, families, text, kept, words, matches)


def _sent(value: Tensor, device: torch.device) -> Tensor:
    """The tensor on the device; a copy to a GPU goes through pinned memory and is not waited for."""
    return value.to(device) if device.type == "cpu" else value.pin_memory().to(device, non_blocking=True)


@contextlib.contextmanager
def deterministic(ordered: bool = True) -> Iterator[None]:
    """Inside, sums are made in one order: with several threads a gathered tensor's gradient is else added up in any."""
    memory: Any = torch.utils.deterministic
    before, fill = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(ordered, warn_only=True)  # where CUDA has no such form it says so and goes on
    memory.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        memory.fill_uninitialized_memory = fill
