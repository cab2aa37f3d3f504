"""What a phase begins with: words are learned from training captions alone."""

from types import SimpleNamespace

import pytest

from ivcore.config import ModelConfig, Phase, TrainConfig
from ivcore.models import build_s2
from ivcore.text.tokenizer import Tokenizer
from ivcore.train import setup
from ivcore.train.job import Job


class Words:
    """Captions of each split in words of its own."""

    def texts(self, language, text_class, split):
        word = {"train": "kettle", "val": "zebra", "test": "zebra"}[split]
        return [(f"t{n}", f"c{n}", f"a {word} {language} {text_class} {n}") for n in range(8)]


@pytest.mark.parametrize("kind", ["s2", "clip"])
@pytest.mark.parametrize("fields", [{}, {"long_share": 0.5, "languages": ("en", "es")}])
def test_a_tokenizer_never_sees_a_caption_of_another_split(kind, fields, monkeypatch):
    s2 = build_s2("tiny", 40, 0), Tokenizer.train(["a b"], 40, "bert")
    monkeypatch.setattr(setup.checkpoint, "load", lambda path: s2)
    init = None if kind == "s2" else SimpleNamespace(path="s2")
    phase = Phase(name="p", steps=40, **fields)
    job = Job.model_construct(kind=kind, model=ModelConfig(), train=TrainConfig(), phase=phase, init=init)
    _, tokenizer = setup.model_and_tokenizer(job, Words())
    pieces = tokenizer.backend.get_vocab()
    assert any("kettle" in piece for piece in pieces) and not any("eb" in piece for piece in pieces)
