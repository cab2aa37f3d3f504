"""Multiple choice and classification: ranks of the true texts of each video, and the figures of the task.

Shapes: V videos of the gallery, Q videos that are asked, C texts (classes or options), E embedding, k candidates.

sim and dsl as in score.py; match re-scores the k best by sim. Classes stand in prompts, options as they are.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from ivcore.config import EvalConfig
from ivcore.datasets.captions import Captions
from ivcore.models import S2Model
from ivcore.retrieval import classification, multiple_choice
from ivcore.retrieval.embed import Encoder, Texts, TokensOf
from ivcore.retrieval.ranking import UNSCORED, Ranked, rank
from ivcore.retrieval.rerank import rerank, unite
from ivcore.retrieval.slices import Slice, chosen

Answer = tuple[Slice, str, Ranked, dict[str, float]]


def answers(
    encoder: Encoder,
    captions: Captions,
    gallery: list[str],
    videos: Tensor,
    tokens_of: TokensOf,
    evaluation: EvalConfig,
) -> Iterator[Answer]:
    """(slice, head, ranks of the true texts, figures of the task) of every head; nothing of a retrieval data set.

    Args:
        videos: [V, E], unit embeddings of the gallery.
    """
    for part in chosen(captions, gallery, evaluation):
        texts = _texts(encoder, part, captions.task, evaluation.prompts)
        similarity = videos @ texts.embedding.T  # [V, C]
        several = len(part.pairs["v2t"]) > len(part.asked)
        k = evaluation.k
        if part.options is not None:
            k = min(k, int(np.bincount(part.options[:, 0]).min()))
        for head, scores in _heads(encoder, part, texts, similarity, tokens_of, k):
            found = rank(lambda a, b, s=scores: s[a:b], scores.shape[1], part.pairs["v2t"], k)  # type: ignore[misc]
            task = classification if captions.task == "classification" else multiple_choice
            figures = task.compute(found.best)
            if several and head == "sim" and part.options is None:
                truth = torch.zeros(similarity.shape, dtype=torch.bool)
                query, text = part.pairs["v2t"].T
                truth[torch.from_numpy(part.asked[query]), torch.from_numpy(text.copy())] = True
                by_class = classification.class_scores(similarity, float(encoder.model.temp))
                figures |= classification.mean_average_precision(by_class, truth)
            yield part, head, found, figures


def _texts(encoder: Encoder, part: Slice, task: str, prompts: str) -> Texts:
    """The texts as the model sees them; a class is the mean of its prompts."""
    if task != "classification":
        return encoder.texts(part.captions)
    templates = classification.prompts(prompts)
    every = encoder.texts(classification.prompted(part.captions, templates)).embedding
    return Texts(classification.mean_of_prompts(every, len(templates)))


def _heads(
    encoder: Encoder, part: Slice, texts: Texts, similarity: Tensor, tokens_of: TokensOf, k: int
) -> Iterator[tuple[str, Tensor]]:
    """(head, scores [Q, C]); minus infinity for what is no option of a video."""
    sim = similarity[part.asked]
    if part.options is not None:
        sim = multiple_choice.only_options(sim, part.options)
    yield "sim", sim
    if part.options is None:  # over the videos; options of one video have no others
        yield "dsl", sim * sim.softmax(dim=0)
    if isinstance(encoder.model, S2Model) and texts.states is not None and texts.mask is not None:
        top = sim.topk(min(k, sim.shape[1]), dim=1).indices.numpy()  # [Q, k]
        pairs = unite(np.zeros((sim.shape[1], 0), np.int64), top, part.asked)
        logits = rerank(encoder.model, texts.states, texts.mask, tokens_of, pairs, encoder.dtype)
        logits = logits.clamp(min=UNSCORED + 1)  # whoever was looked at stands before whoever was not
        known = pairs[:, 1] * sim.shape[1] + pairs[:, 0]  # sorted: by video, then text
        spot = np.searchsorted(known, part.asked[:, None] * sim.shape[1] + top)
        out = torch.full_like(sim, UNSCORED).masked_fill(sim.isinf(), float("-inf"))
        yield "match", out.scatter(1, torch.from_numpy(top), logits[torch.from_numpy(spot)])
