"""Multiple choice by s2 with real layers: matching equals the plain computation; text length is the protocol's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ivcore.config import EvalConfig
from ivcore.models import build_clip, build_s2
from ivcore.retrieval.answers import answers
from ivcore.retrieval.embed import Encoder
from ivcore.retrieval.score import _text_len
from ivcore.text.tokenizer import Tokenizer

WORDS = ["red circle", "blue square moving up", "red square still", "blue circle left", "up"]
NUM = 3


class Asked:
    """Captions of three videos: own options (each two) or the same for all."""

    task = "multiple_choice"

    def __init__(self, own: bool) -> None:
        put = [[("v0", True)], [("v0", False)], [("v1", False)], [("v1", True), ("v2", False)], [("v2", True)]]
        self.put = put if own else [[p for p in some if p[1]] for some in put]

    def options(self, language, text_class):
        rows = [(f"t{n}", text, some) for n, (text, some) in enumerate(zip(WORDS, self.put))]
        return rows if (language, text_class) == ("en", "short") else []


@pytest.fixture(scope="module")
def made():
    tokenizer = Tokenizer.train(WORDS, 60, "bert")
    model = build_s2("tiny", tokenizer.vocab_size, 0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.05)
    tokens = torch.randn(NUM, 65, 96, generator=generator)
    encoder = Encoder(model.eval(), tokenizer, 12, torch.device("cpu"), torch.float32)
    return encoder, tokens


@pytest.mark.parametrize("own", [True, False])
@torch.no_grad()
def test_matching_of_options(made, own):
    encoder, tokens = made

    def tokens_of(videos):
        return tokens[torch.from_numpy(videos)]

    videos = encoder.videos(tokens_of, NUM)
    gallery = [f"v{n}" for n in range(NUM)]
    found = list(answers(encoder, Asked(own), gallery, videos, tokens_of, EvalConfig(k=5, bootstrap=100)))
    assert [head for _, head, *_ in found] == (["sim", "match"] if own else ["sim", "dsl", "match"])
    part, _, ranked, _ = found[-1]
    ids, mask = encoder.tokenizer.encode(WORDS, 12)
    states = encoder.model.encode_text(ids, mask)
    every = torch.stack([encoder.model.match(states, mask, encoder.model.video_kv(v[None]))[:, 1] for v in tokens])
    for query, video in enumerate(part.asked):
        options = [n for n, some in enumerate(Asked(own).put) if not own or f"v{video}" in dict(some)]
        true = [n for n in options if dict(Asked(own).put[n]).get(f"v{video}")]
        best = max(float(every[video, n]) for n in true)
        wrong = [float(every[video, n]) for n in options if n not in true]
        assert ranked.best[query] == 1 + sum(w >= best for w in wrong)
        top = ranked.top_score[query]
        plain = sorted((float(every[video, n]) for n in options), reverse=True)
        np.testing.assert_allclose(top, plain[: len(top)], atol=2e-5)
    text = F.normalize(encoder.model.project_text(states), dim=-1)
    assert torch.allclose(videos @ text.T, videos @ encoder.texts(WORDS).embedding.T, atol=1e-5)


class Recorded:
    def __init__(self, **facts) -> None:
        self.facts = facts

    def record(self):
        return {"facts": self.facts}


def test_the_text_length_is_the_protocols_for_s2_alone():
    s2, clip = build_s2("tiny", 60, 0), build_clip("tiny", 60, 0)
    own, short, long, none = Recorded(text_len=12), *(Recorded(card={"text_len": n}) for n in (32, 150, None))
    assert [_text_len(own, card, s2) for card in (short, long, none, Recorded())] == [32, 64, 12, 12]  # 64 positions
    assert _text_len(own, long, clip) == 12
