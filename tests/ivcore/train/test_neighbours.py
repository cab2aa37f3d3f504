"""Neighbours against the obvious sort."""

import torch

from ivcore.train.neighbours import nearest


def test_nearest_is_the_obvious_sort_and_never_itself():
    generator = torch.Generator().manual_seed(3)
    video, text = (torch.nn.functional.normalize(torch.randn(50, 8, generator=generator), dim=1) for _ in range(2))
    rows = list(range(100, 150))
    found = nearest(video, text, rows)
    for i, row in enumerate(rows):
        order = sorted((j for j in range(50) if j != i), key=lambda j: -float(text[i] @ video[j]))
        assert set(found[row].tolist()) == {rows[j] for j in order[:24]}
