"""A batch in parts, in cached chunks, with blocks that compute twice: the gradients of the whole."""

import dataclasses

import pytest
import torch

from ivcore.errors import UserError
from ivcore.train import backward
from tests.ivcore.train import made_up


def gradients(accumulate=1, chunk=0, kind="s2", dropout=0.1, **phase):
    """Gradients of one batch of 16, in parts."""
    stage = {"accumulate": accumulate, "grad_cache_chunk": chunk}
    loop = made_up.loop(kind, made_up.phase(kind, **phase), stage, dropout=dropout)
    batch = next(made_up.batches(1))
    names, losses = loop.backward(batch, loop.totals)
    figures = loop.backward.figures(names, losses.tolist())
    return figures, {n: p.grad for n, p in loop.named.items() if p.grad is not None}, loop, batch


def test_parts_of_a_batch_add_up_to_the_mean_of_their_gradients():
    fields = {"vtm": 0.0, "mlm": 0.0, "token_drop": 0.0}
    figures, found, loop, batch = gradients(2, **fields)
    loop.optimiser.zero_grad(set_to_none=True)
    halves = []
    for part in range(2):
        draws = made_up.draws(part, 2)
        draws.seed_dropout()
        halves.append(loop.backward.wrapped(loop.backward.inputs(batch, draws), draws, True)["vtc"])
    mean = torch.stack(halves).mean()
    mean.backward()
    assert figures["loss/vtc"] == pytest.approx(mean.item(), rel=1e-6)
    wanted = {n: p.grad for n, p in loop.named.items() if p.grad is not None}
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[n], wanted[n], atol=1e-6) for n in found)


@pytest.mark.parametrize("chunk", [4, 16])
@pytest.mark.parametrize("kind", ["s2", "clip"])
def test_cached_gradients_are_those_of_the_whole_batch(kind, chunk):
    fields = {"vtm": 0.0, "mlm": 0.0} if kind == "s2" else {}
    whole, cached = (gradients(chunk=c, kind=kind, dropout=0.0, **fields)[:2] for c in (0, chunk))
    assert cached[0] == pytest.approx(whole[0], rel=1e-6) and cached[1].keys() == whole[1].keys()
    assert all(torch.allclose(cached[1][n], whole[1][n], atol=1e-5) for n in whole[1])


def test_matching_and_masked_words_of_a_single_chunk_are_those_of_the_batch():
    whole, cached = (gradients(chunk=c, dropout=0.0)[:2] for c in (0, 16))
    assert cached[0].keys() == whole[0].keys() == {"loss", "loss/vtc", "loss/vtm", "loss/mlm"}
    assert cached[0] == pytest.approx(whole[0], rel=1e-6)
    assert all(torch.allclose(cached[1][n], whole[1][n], atol=1e-5) for n in whole[1])


@pytest.mark.parametrize("stage, vtc", [({"accumulate": 4}, 0.0), ({"grad_cache_chunk": 4}, 1.0)])
def test_masked_words_in_parts_are_those_of_the_whole_batch(stage, vtc):
    """Captions have 3 to 14 words, so parts have more and fewer masked ones; each word counts the same."""

    def found(stage):
        loop = made_up.loop("s2", made_up.phase("s2", vtc=vtc, vtm=0.0, mlm=2.0), stage, dropout=0.0)
        batch = next(made_up.batches(1))
        names, losses = loop.backward(batch, loop.totals)
        counts = [inputs.words.targets.numel() for inputs in loop.backward.parts(batch, loop.backward.draws(batch, 0))]
        return (
            dict(zip(names, losses.tolist())),
            {n: p.grad for n, p in loop.named.items() if p.grad is not None},
            counts,
        )

    (whole, wanted, _), (parts, given, counts) = found({}), found(stage)
    assert len(set(counts)) > 1  # or there would be nothing to weigh
    assert parts == pytest.approx(whole, rel=1e-5) and given.keys() == wanted.keys()
    assert all(torch.allclose(given[n], wanted[n], atol=1e-5) for n in wanted)


def test_matching_of_a_chunk_counts_by_its_share():
    """Its negatives come from the chunk, so only the mean over chunks can be told."""
    stage = {"grad_cache_chunk": 4}
    loop = made_up.loop("s2", made_up.phase("s2", mlm=0.0), stage, dropout=0.0)
    batch = next(made_up.batches(1))
    draws, objective = loop.backward.draws(batch, 0), loop.backward.objective
    alone = []
    for one in draws:
        inputs = loop.backward.inputs(batch, one)
        vectors, *rest = objective.encode(inputs)
        alone.append(objective.fused(inputs, one, vectors, *rest)["vtm"])
    mean = torch.stack(alone).mean()
    names, losses = loop.backward(batch, loop.totals)
    assert losses[names.index("vtm")].item() == pytest.approx(mean.item(), rel=1e-6)
    head = [n for n in loop.named if "itm_head" in n]  # nothing but matching moves it
    given = {n: loop.named[n].grad.clone() for n in head}
    loop.optimiser.zero_grad(set_to_none=True)
    mean.backward()
    assert head and all(torch.allclose(given[n], loop.named[n].grad, atol=1e-7) for n in head)


def test_a_batch_that_cannot_be_divided_is_refused():
    with pytest.raises(UserError, match="16 clips cannot be divided"):
        gradients(3)


def test_blocks_that_compute_twice_give_the_same_gradients():
    from ivcore.train.fit import _fit_memory

    def found(**train):
        loop = made_up.loop("s2", made_up.phase("s2"), **train)
        _fit_memory(loop.model, loop.train, torch.device("cpu"))
        return (
            loop.backward(next(made_up.batches(1)), loop.totals)[1].tolist(),
            {n: p.grad for n, p in loop.named.items()},
            loop,
        )

    plain, twice = found(), found(checkpoint_vision=3, checkpoint_text=True)
    assert twice[2].model.text_encoder.shape.checkpoint_layers and plain[0] == twice[0]
    assert all(torch.equal(plain[1][n], twice[1][n]) for n in plain[1] if plain[1][n] is not None)


def test_gathered_gradients_are_the_same_bytes_on_two_threads():
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(64, 3, 65, 32, generator=draw).requires_grad_(True)  # keys of 64 videos, read by 192 pairs
    index, weight = torch.randint(0, 64, (192,), generator=draw), torch.randn(192, 3, 65, 32, generator=draw)
    torch.set_num_threads(2)
    try:
        with backward.deterministic():
            found = [torch.autograd.grad((rows[index] * weight).sum(), rows)[0] for _ in range(12)]
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(found[0], other) for other in found)  # without it most of them differ
    assert not torch.are_deterministic_algorithms_enabled()


def test_every_step_sums_in_one_order(chain, monkeypatch):
    asked, losses = [], backward.Objective.forward

    def watched(*args):
        asked.append(torch.are_deterministic_algorithms_enabled())
        return losses(*args)

    monkeypatch.setattr(backward.Objective, "forward", watched)
    phase = chain.config.train.s2.phases[0].model_copy(update={"name": "watched", "steps": 2})
    chain.run(chain.s2(phase, chain.frames, None))
    assert asked == [True, True]


def test_cached_steps_of_images_and_of_videos_are_counted_each_as_what_they_are(monkeypatch):
    loop = made_up.loop("clip", made_up.phase("clip"), {"grad_cache_chunk": 4})
    frames = {"video": 8, "image": 1}

    def cached(batch, draws, full):
        torch.ones(100 * frames[batch.kind.split("/")[0]], 100) @ torch.ones(100, 50)
        return {"vtc": torch.zeros(())}

    monkeypatch.setattr(loop.backward, "_cached", cached)
    batch = next(made_up.batches(1))
    for kind in ("video/en/short", "image/en/short", "image/en/short", "video/en/short"):
        loop.backward(dataclasses.replace(batch, kind=kind), loop.totals)
    assert loop.totals.gflop == pytest.approx((8 + 1 + 1 + 8) * 1e6 / 1e9)
