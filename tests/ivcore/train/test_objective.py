"""The losses of a step: who is a negative of whom in the contrast."""

import pytest
import torch
import torch.nn.functional as F

from tests.ivcore.train import made_up


@pytest.mark.parametrize("kind", ["s2", "clip"])
@pytest.mark.parametrize("negatives", ["all", "other_scenes"])
def test_the_contrast_leaves_swaps_out_where_the_phase_says_so(kind, negatives):
    """Every softmax in plain words: the pair itself against those of other families, or against all."""
    loop = made_up.loop(kind, made_up.phase(kind, vtc_negatives=negatives), dropout=0.0)
    inputs = loop.backward.inputs(next(made_up.batches(1)), made_up.draws())
    families = torch.arange(16) // 4
    objective = loop.backward.objective
    with torch.no_grad():
        (video, text), *_ = objective.encode(inputs)
        found = objective.contrast(video, text, torch.arange(16), families)["vtc"]
    sim = F.normalize(video, dim=1) @ F.normalize(text, dim=1).T / objective.model.temp.item()
    losses = []
    for table in (sim, sim.T):
        for i in range(16):
            others = [j for j in range(16) if j == i or negatives == "all" or families[j] != families[i]]
            losses.append(table[i, others].logsumexp(0) - table[i, i])
    assert found.item() == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)
