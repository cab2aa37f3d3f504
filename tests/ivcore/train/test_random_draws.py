"""Masks are a function of seed, phase and step, however a batch is divided."""

import torch

from ivcore.train.random_draws import Draws
from tests.ivcore.train import made_up


def draws(part=0, parts=1, step=4):
    return Draws(seed=7, phase="p", step=step, text_len=12, part=part, parts=parts)


def test_masks_are_those_of_the_whole_batch_however_it_is_divided():
    tokenizer = made_up.parts("s2")[1]
    ids, mask = tokenizer.encode(made_up.captions()[:8], 12)
    whole, words = draws().kept_tokens(8, 64, 0.5), draws().masked_words(ids, mask, tokenizer)
    halves = [draws(i, 2) for i in range(2)]
    assert torch.equal(whole, torch.cat([d.kept_tokens(4, 64, 0.5) for d in halves]))
    for i, d in enumerate(halves):
        own = slice(4 * i, 4 * i + 4)
        length = int(mask[own].sum(1).max())  # padded to the part's longest
        corrupted, labels = d.masked_words(ids[own, :length], mask[own, :length], tokenizer)
        assert torch.equal(corrupted, words[0][own, :length]) and torch.equal(labels, words[1][own, :length])
    assert not torch.equal(whole, draws(step=5).kept_tokens(8, 64, 0.5))
