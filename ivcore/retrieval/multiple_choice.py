"""Multiple choice: which of the options is true of the video?

Shapes: Q questions (a video each), C texts that are an option of some question.
"""

import numpy as np
import torch
from torch import Tensor


def only_options(scores: Tensor, options: np.ndarray) -> Tensor:
    """The scores [Q, C] with minus infinity wherever a text is no option of the question.

    Args:
        options: int [O, 2], (question, text), every option of every question.

    >>> only_options(torch.tensor([[0.9, 0.2, 0.1], [0.3, 0.2, 0.1]]), np.array([[0, 1], [0, 2], [1, 0], [1, 1]]))
    tensor([[  -inf, 0.2000, 0.1000],
            [0.3000, 0.2000,   -inf]])
    """
    question, text = torch.from_numpy(options.T.copy())
    out = torch.full_like(scores, float("-inf"))
    out[question, text] = scores[question, text]
    return out


def compute(ranks: np.ndarray) -> dict[str, float]:
    """Share of questions whose best-scored option is a true one (0-100); ranks int [Q] of the best true option, from 1.

    A tie with a wrong option is lost (the tie rule of retrieval.py).

    >>> compute(np.array([1, 3, 1, 2]))
    {'accuracy': 50.0}
    """
    if not len(ranks) or ranks.min() < 1:
        raise ValueError(f"ranks start at 1 and there is at least one, got {ranks[:5]}")
    return {"accuracy": 100.0 * float(np.mean(ranks == 1))}
