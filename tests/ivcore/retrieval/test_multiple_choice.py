"""Multiple choice: options and no others count, ties are lost, edges."""

import doctest

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ivcore.retrieval import multiple_choice
from ivcore.retrieval.ranking import ranks


def test_examples_hold():
    assert doctest.testmod(multiple_choice).failed == 0


@st.composite
def questions(draw):
    """(scores [Q, C] with many ties, options of each question, its answer)."""
    num, texts = draw(st.integers(1, 6)), draw(st.integers(2, 7))
    score = st.sampled_from([0.0, 0.25, 0.5, 1.0])
    scores = draw(st.lists(st.lists(score, min_size=texts, max_size=texts), min_size=num, max_size=num))
    options = [sorted(draw(st.sets(st.integers(0, texts - 1), min_size=2))) for _ in range(num)]
    answers = [draw(st.sampled_from(some)) for some in options]
    return torch.tensor(scores), options, answers


@settings(max_examples=200, deadline=None, derandomize=True)
@given(questions())
def test_equal_to_choosing_one_question_at_a_time(made):
    scores, options, answers = made
    pairs = np.array([(q, text) for q, some in enumerate(options) for text in some])
    found = multiple_choice.compute(ranks(multiple_choice.only_options(scores, pairs), torch.tensor(answers)))
    right = 0
    for q, (some, answer) in enumerate(zip(options, answers)):
        right += all(scores[q, answer] > scores[q, other] for other in some if other != answer)
    assert found["accuracy"] == pytest.approx(100 * right / len(options))


def test_none_right_all_right_one_question():
    scores = torch.eye(3)
    assert multiple_choice.compute(ranks(scores, torch.arange(3))) == {"accuracy": 100.0}
    assert multiple_choice.compute(ranks(scores, torch.tensor([1, 2, 0]))) == {"accuracy": 0.0}
    assert multiple_choice.compute(ranks(torch.tensor([[0.5, 0.5]]), torch.tensor([0]))) == {"accuracy": 0.0}  # a tie
    with pytest.raises(ValueError, match="at least one"):
        multiple_choice.compute(np.array([]))
