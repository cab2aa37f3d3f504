"""Batches: the same seed gives the same ones, families stay whole, neighbours are those of the model."""

import torch

from ivcore.config import Phase
from ivcore.train.batches import Batches, nearest


class MadeUpCaptions:
    """40 clips in 10 families of 4, one short English caption each; the last family is not for training."""

    def texts(self, language, text_class, split):
        if (language, text_class, split) != ("en", "short", "train"):
            return []
        return [(f"t{i}", f"c{i:02}", f"caption {i}") for i in range(36)]

    def family(self, clip):
        return str(int(clip[1:]) // 4)


CLIPS = [f"c{i:02}" for i in range(40)]


def made(seed=0, **fields):
    return Batches(MadeUpCaptions(), CLIPS, Phase(name="p", steps=9, **fields), 8, seed)


def test_seeded():
    assert [b.rows for b in made()] == [b.rows for b in made()]
    assert [b.rows for b in made()] != [b.rows for b in made(seed=1)]


def test_random_batches_use_every_training_clip_before_any_twice():
    rows = [r for b in list(made())[:4] for r in b.rows]
    assert len(set(rows)) == len(rows) == 32
    assert max(r for b in made() for r in b.rows) < 36  # the held-out family never comes


def test_captions_belong_to_their_rows():
    assert all(c == f"caption {r}" for b in made() for r, c in zip(b.rows, b.captions, strict=True))


def test_families_come_whole():
    for batch in made(batches="families"):
        assert len(batch.rows) == 8
        assert sorted(torch.bincount(batch.families).tolist(), reverse=True)[:2] == [4, 4]


def test_nearest_is_the_obvious_sort_and_never_itself():
    generator = torch.Generator().manual_seed(3)
    video, text = (torch.nn.functional.normalize(torch.randn(50, 8, generator=generator), dim=1) for _ in range(2))
    rows = list(range(100, 150))
    found = nearest(video, text, rows)
    for i, row in enumerate(rows):
        order = sorted((j for j in range(50) if j != i), key=lambda j: -float(text[i] @ video[j]))
        assert set(found[row].tolist()) == {rows[j] for j in order[:24]}


def test_neighbour_batches_hold_no_clip_twice():
    batches = made(batches="neighbours")
    unit = torch.nn.functional.normalize(torch.randn(36, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    batches.neighbours = nearest(unit, unit, range(36))
    assert all(len(set(b.rows)) == len(b.rows) == 8 for b in batches)
