"""The matching head's second look at the best candidates of both directions, each pair scored once.

Shapes: T texts, L text tokens, H hidden, V videos, N video tokens, C vision width, P pairs.

Upstream scores text-to-video and video-to-text apart, and projects a video's keys and values anew for every pair. The
logit of a pair does not depend on who asked, so here the pairs of both directions are united; videos go outermost, the
keys and values of each are projected once, and its texts line up as one long query against them.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ivcore.models.s2 import S2Model

MAX_TEXT_TOKENS = 4096  # padded text tokens in one pass of the fusion layers
VIDEOS_AT_ONCE = 32  # videos whose tokens are read and whose keys and values are held at once


def unite(t2v_top: np.ndarray, v2t_top: np.ndarray, videos: np.ndarray | None = None) -> np.ndarray:
    """Every (text, video) pair that either direction needs, once: int [P, 2] sorted by video, then text.

    Args:
        t2v_top: int [T, k], videos that each text wants looked at.
        v2t_top: int [V', k], texts that each video wants looked at.
        videos: int [V'], the videos of those rows; None: row v is video v.

    >>> unite(np.array([[0], [0]]), np.array([[1], [0]])).tolist()
    [[0, 0], [1, 0], [0, 1]]
    """
    by_text = np.stack([np.arange(len(t2v_top)).repeat(t2v_top.shape[1]), t2v_top.ravel()], axis=1)
    videos = np.arange(len(v2t_top)) if videos is None else videos
    by_video = np.stack([v2t_top.ravel(), videos.repeat(v2t_top.shape[1])], axis=1)
    swapped = np.concatenate([by_text, by_video])[:, ::-1]  # video first, for the sort
    return np.ascontiguousarray(np.unique(swapped, axis=0)[:, ::-1])


@torch.inference_mode()
def rerank(
    model: S2Model,
    states: Tensor,
    masks: Tensor,
    tokens_of: Callable[[np.ndarray], Tensor],
    pairs: np.ndarray,
    max_text_tokens: int = MAX_TEXT_TOKENS,
    videos_at_once: int = VIDEOS_AT_ONCE,
) -> Tensor:
    """Raw class-1 logits of the pairs, in their order: float32 [P], on the CPU.

    Args:
        model: in eval mode.
        states: [T, L, H] from `encode_text`, on any device.
        masks: [T, L], 1 = token; tokens stand at the front.
        tokens_of: video numbers [n] -> tokens [n, N, C]; asked for each video once, in growing order.
        pairs: int [P, 2], (text, video).
        max_text_tokens: most text tokens, padding included, in one pass.
        videos_at_once: most videos held.

    Raises:
        ValueError: if states and masks do not fit, or a pair names a text that is not there.
    """
    if masks.shape != states.shape[:2]:
        raise ValueError(f"masks are {list(masks.shape)}, states are {list(states.shape)}")
    if len(pairs) and (pairs[:, 0].max() >= len(states) or pairs.min() < 0):
        raise ValueError(f"pairs name texts up to {pairs[:, 0].max()}, there are {len(states)}")
    device = next(model.parameters()).device
    dtype = next(model.parameters()).dtype
    lengths = masks.sum(dim=1).cpu().numpy()
    order = np.lexsort((lengths[pairs[:, 0]], pairs[:, 1]))  # by video, then length of text
    videos, starts = np.unique(pairs[order, 1], return_index=True)
    ends = np.append(starts[1:], len(order))
    out = torch.empty(len(pairs))
    for first in range(0, len(videos), videos_at_once):
        block = videos[first : first + videos_at_once]
        kv = model.video_kv(tokens_of(block).to(device, dtype))  # [n, A, N, D] a layer
        for i in range(len(block)):
            one = [(k[i : i + 1], v[i : i + 1]) for k, v in kv]
            for some in _packs(order[starts[first + i] : ends[first + i]], lengths[pairs[:, 0]], max_text_tokens):
                texts = torch.from_numpy(pairs[some, 0]).to(states.device)
                length = int(lengths[pairs[some, 0]].max())
                read = states[texts, :length].to(device), masks[texts, :length].to(device)
                out[torch.from_numpy(some)] = model.match(*read, one)[:, 1].float().cpu()
    return out


def _packs(order: np.ndarray, lengths: np.ndarray, max_text_tokens: int) -> Iterator[np.ndarray]:
    """Cut pairs, sorted by length, into runs of at most `max_text_tokens` padded tokens (but at least one pair)."""
    first = 0
    for last in range(1, len(order) + 1):
        if last == len(order) or (last - first + 1) * int(lengths[order[last]]) > max_text_tokens:
            yield order[first:last]
            first = last
