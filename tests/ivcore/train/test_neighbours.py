"""Neighbours against the obvious sort."""

import pytest
import torch

from ivcore.datasets.captions import Captions
from ivcore.train.neighbours import nearest


def test_nearest_is_the_obvious_sort_and_never_itself():
    generator = torch.Generator().manual_seed(3)
    video, text = (torch.nn.functional.normalize(torch.randn(50, 8, generator=generator), dim=1) for _ in range(2))
    rows = list(range(100, 150))
    found = nearest(video, text, rows)
    for i, row in enumerate(rows):
        order = sorted((j for j in range(50) if j != i), key=lambda j: -float(text[i] @ video[j]))
        assert set(found[row].tolist()) == {rows[j] for j in order[:24]}


@pytest.mark.parametrize("by", ["batch", "clip"])
def test_a_phase_of_neighbours_trains_in_two_languages_that_not_every_clip_has(chain, monkeypatch, by):
    """Every other clip has Chinese: a Chinese batch is of clips that have it, each beside those it is confused with."""
    texts = Captions.texts

    def some(self, language, text_class, split):
        found = texts(self, language, text_class, split)
        return found[::2] if (language, split) == ("zh", "train") else found

    monkeypatch.setattr(Captions, "texts", some)
    last = chain.config.train.s2.phases[1]
    fields = {"name": f"both_{by}", "steps": 6, "languages": ("zh", "en"), "language_by": by, "long_share": 0.3}
    made = chain.run(chain.s2(last.model_copy(update=fields), chain.features, chain.first))
    assert made.record()["facts"]["steps"] == 6
