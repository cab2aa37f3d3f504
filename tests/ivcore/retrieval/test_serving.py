"""One text against videos of an index: hot, cold and mixed equal the plain form; the hot set keeps to its budget."""

import numpy as np
import pytest
import torch

from ivcore.models import build_s2, fusion_packed
from ivcore.retrieval.serving import Matcher

VIDEOS, LENGTH = 9, 7
SHAPES = {"tiny": {}, "one layer": {"fusion_layer": 3}, "projected": {"fusion_width": 40}}


@pytest.fixture(scope="module", params=SHAPES, ids=str)
def model(request):
    return build_s2("tiny", 60, 0, **SHAPES[request.param]).eval()


@pytest.fixture(scope="module")
def tokens() -> torch.Tensor:
    return torch.randn(VIDEOS, 65, 96, generator=torch.Generator().manual_seed(0))


def text(model) -> torch.Tensor:
    ids = torch.randint(4, 60, (1, LENGTH), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return model.encode_text(ids, torch.ones_like(ids))[0]


def plain(model, states, tokens) -> list[float]:
    with torch.no_grad():
        many = states.expand(len(tokens), -1, -1), torch.ones(len(tokens), LENGTH)
        return model.match(*many, model.video_kv(tokens))[:, 1].tolist()


@pytest.mark.parametrize("stacked", [0, 1 << 30], ids=["apart", "stacked"])
@pytest.mark.parametrize("hot", [[], [4, 1], range(VIDEOS)], ids=["cold", "mixed", "hot"])
def test_equals_the_plain_form(model, tokens, hot, stacked, monkeypatch):
    monkeypatch.setattr(fusion_packed, "STACKED_BYTES", stacked)
    asked = []

    def tokens_of(rows: np.ndarray) -> torch.Tensor:
        asked.extend(rows.tolist())
        return tokens[torch.from_numpy(rows)]

    matcher = Matcher(model, tokens_of, max_bytes=1 << 30)
    assert matcher.keep(hot) == len(hot)
    asked.clear()
    videos = np.array([8, 4, 0, 1])
    found = matcher(text(model), videos)
    assert found.tolist() == pytest.approx(plain(model, text(model), tokens[videos]), abs=1e-5)
    assert sorted(asked) == sorted(set(videos.tolist()) - set(hot))
    assert (matcher.hits, matcher.misses) == (4 - len(asked), len(asked))


def test_tokens_may_come_projected(model, tokens):
    videos = np.array([2, 3])
    with torch.no_grad():
        ready = model.fusion_tokens(tokens)
    found = Matcher(model, lambda rows: list(ready[rows]), 0, projected=True)(text(model), videos)
    assert found.tolist() == pytest.approx(plain(model, text(model), tokens[videos]), abs=1e-5)


def test_the_budget_holds_and_the_most_asked_stay(model, tokens):
    matcher = Matcher(model, lambda rows: tokens[torch.from_numpy(rows)], 0)
    assert matcher.keep([0]) == 0 and not matcher.hot
    one = 65 * 2 * 96 * 4 * len(matcher.layers)
    matcher.max_bytes = 2 * one
    for videos in ([0, 1], [0, 1], [1, 2]):
        matcher(text(model), np.array(videos))
    assert matcher.keep([0, 1, 2]) == 2
    assert matcher.hot.keys() == {0, 1} and matcher.bytes == 2 * one
    for _ in range(2):
        matcher(text(model), np.array([2]))
    assert matcher.keep([2]) == 1  # asked for three times, video 0 twice
    assert matcher.hot.keys() == {1, 2} and matcher.bytes == 2 * one
    assert matcher.keep([0]) == 0
