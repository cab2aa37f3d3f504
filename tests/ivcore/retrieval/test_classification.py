"""Zero-shot recognition: prompts, top-k and average precision, by hand and against the obvious versions."""

import doctest

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from ivcore.errors import UserError
from ivcore.retrieval import classification
from ivcore.retrieval.ranking import ranks
from ivcore.text.cleaning import pre_text


def test_examples_hold():
    assert doctest.testmod(classification).failed == 0


def test_the_published_prompts():
    found = classification.prompts("actions16")
    assert len(found) == len(set(found)) == 16 and all(p.count("{}") == 1 for p in found)
    assert [pre_text(p.replace("{}", "tai chi")) for p in found] == classification.prompted(["tai chi"], found)
    assert classification.prompts("name") == ["{}"]
    with pytest.raises(UserError, match="known: actions16, name"):
        classification.prompts("more")


def test_the_mean_of_cosines_is_no_cosine_with_a_mean():
    g = torch.Generator().manual_seed(0)
    texts = F.normalize(torch.randn(4 * 3, 8, generator=g), dim=-1)
    video = F.normalize(torch.randn(5, 8, generator=g), dim=-1)
    plain = torch.stack([(video @ texts[3 * c : 3 * c + 3].T).mean(dim=1) for c in range(4)], dim=1)
    mean = classification.mean_of_prompts(texts, 3)
    assert torch.allclose(video @ mean.T, plain, atol=1e-6)
    assert not torch.allclose(video @ F.normalize(mean, dim=-1).T, plain, atol=1e-2)
    with pytest.raises(ValueError, match="are not 5 for each"):
        classification.mean_of_prompts(texts, 5)


def obvious(scores: list[float], truth: list[bool]) -> float:
    """Average precision of one class, item by item; wrong before true at an equal score."""
    order = sorted(range(len(scores)), key=lambda n: (-scores[n], truth[n]))
    hits, total = 0, 0.0
    for place, n in enumerate(order, 1):
        if truth[n]:
            hits += 1
            total += hits / place
    return total / hits if hits else float("nan")


@st.composite
def labelled(draw):
    num, classes = draw(st.integers(1, 8)), draw(st.integers(1, 4))
    score = st.sampled_from([0.0, 0.25, 0.5, 1.0])  # ties are common
    table = [[draw(score) for _ in range(classes)] for _ in range(num)]
    return torch.tensor(table), torch.tensor([[draw(st.booleans()) for _ in range(classes)] for _ in range(num)])


@settings(max_examples=200, deadline=None, derandomize=True)
@given(labelled())
def test_average_precision_equals_the_obvious_one(made):
    scores, truth = made
    found = classification.average_precision(scores, truth).numpy()
    wanted = [obvious(scores[:, c].tolist(), truth[:, c].tolist()) for c in range(scores.shape[1])]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(labelled(), st.randoms(use_true_random=False))
def test_the_order_of_videos_does_not_matter(made, chance):
    scores, truth = made
    order = list(range(len(scores)))
    chance.shuffle(order)
    one, two = (classification.average_precision(scores[o], truth[o]) for o in (slice(None), order))
    assert torch.allclose(one, two, equal_nan=True)


def test_average_precision_at_its_edges():
    truth = torch.tensor([[True], [True], [False], [False]])
    down = torch.tensor([[4.0], [3.0], [2.0], [1.0]])
    assert classification.mean_average_precision(down, truth)["map"] == 100.0
    # true ones last: (1/3 + 2/4) / 2
    assert classification.mean_average_precision(-down, truth)["map"] == pytest.approx(100 * (1 / 3 + 2 / 4) / 2)
    constant = classification.mean_average_precision(torch.zeros(4, 1), truth)["map"]
    assert constant == pytest.approx(100 * (1 / 3 + 2 / 4) / 2)  # a head that says nothing is not flattered
    assert classification.mean_average_precision(torch.ones(1, 1), torch.ones(1, 1).bool())["map"] == 100.0
    with pytest.raises(ValueError, match="no video shows"):
        classification.mean_average_precision(down, torch.zeros(4, 1).bool())
    with pytest.raises(ValueError, match="not numbers"):
        classification.average_precision(down * float("nan"), truth)


def test_class_scores_change_the_order_across_videos_only():
    """softmax weighs a class against the others of the video: the first video is less sure of everything."""
    sim = torch.tensor([[0.9, 0.8], [0.5, 0.1]])
    found = classification.class_scores(sim, 0.1)
    assert (found.argmax(dim=1) == sim.argmax(dim=1)).all() and found[1, 0] > found[0, 0]
    assert found[0, 0] == pytest.approx(1 / (1 + np.exp(-1)))


def test_top_k():
    scores = torch.tensor([[0.9, 0.1, 0.3, 0.2, 0.15, 0.12], [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]])
    assert classification.compute(ranks(scores, torch.tensor([0, 5]))) == {"top1": 50, "top5": 50, "top1_top5": 50}
    assert classification.compute(ranks(scores, torch.tensor([1, 0])))["top5"] == 50.0
    assert classification.compute(np.array([1])) == {"top1": 100, "top5": 100, "top1_top5": 100}
    assert classification.compute(np.array([6, 7])) == {"top1": 0, "top5": 0, "top1_top5": 0}
