"""Which pairs a rerank answers in one call, and where their rows lie: planned on the host, sent to the device at once.

Shapes: P pairs of a call, R rows (text tokens of all pairs of a call, one text after another).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

SHORTEST = 16  # the first length class; each further one is twice as long
WASTE = 2  # padded query rows of a call, at most so many times its rows


@dataclass(frozen=True)
class Call:
    """Which pairs one call answers: those of consecutive videos of a block whose texts are of one length class.

    pair: int [P], numbers of the pairs, by video. text: int [P]. video: int [P], from 0. videos: first and last + 1 of
    the block's videos that are read. length: L.
    """

    pair: np.ndarray
    text: np.ndarray
    video: np.ndarray
    videos: tuple[int, int]
    length: int


@dataclass(frozen=True)
class Layout:
    """Rows of a call, grouped (by text or by video) into padded lines of `length`.

    places: int [R], where each row lies in the lines. rows: int [groups * length], which row lies there; row 0 where
    none does. counts: int [groups].
    """

    places: Tensor
    rows: Tensor
    counts: Tensor
    length: int


def _lay_out(group: np.ndarray, size: np.ndarray, length: int) -> list[np.ndarray]:
    """places, rows and counts of a layout: texts of `size` rows each, in growing order of their `group`."""
    counts = np.bincount(group, size).astype(np.int64)
    of_row = group.repeat(size)
    places = of_row * length + np.arange(len(of_row)) - (counts.cumsum() - counts)[of_row]
    rows = np.zeros(len(counts) * length, np.int64)
    rows[places] = np.arange(len(of_row))
    return [places, rows, counts]


def calls(block: np.ndarray, text: np.ndarray, video: np.ndarray, lengths: np.ndarray, max_rows: int) -> Iterator[Call]:
    """The calls of a block's pairs, which come by video: a length class after another, videos in growing order."""
    classes = np.maximum(SHORTEST, 2 ** np.ceil(np.log2(lengths[text])).astype(int))
    for length in np.unique(classes):
        these = np.flatnonzero(classes == length)
        size = lengths[text[these]]
        for a, b in _cuts(video[these], size, max_rows):
            some = these[a:b]
            first = int(video[some[0]])
            yield Call(block[some], text[some], video[some] - first, (first, int(video[some[-1]]) + 1), int(length))


def _cuts(video: np.ndarray, size: np.ndarray, max_rows: int) -> Iterator[tuple[int, int]]:
    """Where calls begin and end: pairs of whole videos where they fit, a video's pairs in parts where they do not.

    A call holds at most `max_rows` rows, and at most WASTE times as many when each of its videos is padded to the one
    with the most.
    """
    begun = rows = most = num = 0
    ends = [*(np.flatnonzero(np.diff(video)) + 1).tolist(), len(video)]
    for a, b in itertools.pairwise([0, *ends]):
        mine = int(size[a:b].sum())
        padded = max(most, mine) * (num + 1 + (int(video[a]) - int(video[a - 1]) - 1 if num else 0))
        if num and (rows + mine > max_rows or padded > WASTE * max(max_rows, rows + mine)):
            yield begun, a
            begun, rows, most, num = a, 0, 0, 0
        if mine > max_rows:  # alone, in parts
            parts = (size[a:b].cumsum() - 1) // max_rows
            for c, d in itertools.pairwise([0, *(np.flatnonzero(np.diff(parts)) + 1).tolist(), b - a]):
                yield a + c, a + d
            begun = b
        else:
            num += 1 + (int(video[a]) - int(video[a - 1]) - 1 if num else 0)
            rows, most = rows + mine, max(most, mine)
    if begun < len(video):
        yield begun, len(video)


def parts_of(lengths: np.ndarray, max_rows: int) -> Iterator[np.ndarray]:
    """Numbers of the texts in their order, in parts that hold at most so many padded rows."""
    begun = most = 0
    for n, length in enumerate(lengths.tolist()):
        most = max(most, length)
        if n > begun and most * (n + 1 - begun) > max_rows:
            yield np.arange(begun, n)
            begun, most = n, length
    yield np.arange(begun, len(lengths))


def rounded(num: int) -> int:
    """The next of 8, 16, 24, 32, 48, 64, 96, ...: few values, none far above what is needed.

    >>> [rounded(n) for n in (1, 17, 33, 65)]
    [8, 24, 48, 96]
    """
    if num <= 32:
        return -(-num // 8) * 8
    half = 1 << ((num - 1).bit_length() - 1)
    return half + half // 2 if num <= half + half // 2 else 2 * half


def row_numbers(start: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Row numbers of runs of rows, one run after another: int [sum of sizes]."""
    rows: np.ndarray = np.arange(size.sum()) + (start - size.cumsum() + size).repeat(size)
    return rows


def send(
    device: torch.device, layouts: list[tuple[np.ndarray, np.ndarray, int]], arrays: list[np.ndarray]
) -> list[Any]:
    """Layouts (group, size, length), then index arrays, on the device: in one copy that the host does not wait for."""
    parts = [part for some in layouts for part in _lay_out(*some)] + arrays
    whole = torch.from_numpy(np.concatenate(parts))
    if device.type == "cuda":
        whole = whole.pin_memory().to(device, non_blocking=True)
    pieces = list(whole.split([len(part) for part in parts]))
    found: list[Any] = []
    for n, (_, _, length) in enumerate(layouts):
        places, rows, counts = pieces[3 * n : 3 * n + 3]
        found.append(Layout(places, rows, counts, length))
    return [*found, *pieces[3 * len(layouts) :]]
