"""A WordPiece vocabulary from captions, the same on every run.

The tokenizers library applies vocabularies but orders a trained one by the iteration of a hash map, which differs from
process to process; here ties go to the pair that comes first in the alphabet. Meant for the vocabularies of the tiny
size, a few thousand pieces.
"""

import collections
import itertools
from collections.abc import Iterable, Mapping, Sequence

Pair = tuple[str, str]


def learn(words: Mapping[str, int], vocab_size: int, special: Sequence[str]) -> dict[str, int]:
    """Piece -> id: the special pieces, then every character (alone and as ##continuation), then merges.

    Args:
        words: word -> how often it stands in the captions.
        vocab_size: largest number of pieces; the characters come in even when they alone are more than that.

    >>> learn({"aba": 2, "ab": 1}, 6, ["[PAD]"])
    {'[PAD]': 0, '##a': 1, '##b': 2, 'a': 3, 'ab': 4, 'aba': 5}
    """
    spelled = {word: [word[0], *("##" + c for c in word[1:])] for word in sorted(words)}
    pieces = [*special, *sorted({piece for pieces in spelled.values() for piece in pieces} - set(special))]
    known = set(pieces)
    counts: collections.Counter[Pair] = collections.Counter()
    where: dict[Pair, set[str]] = collections.defaultdict(set)
    for word, spelling in spelled.items():
        for pair in itertools.pairwise(spelling):
            counts[pair] += words[word]
            where[pair].add(word)
    while counts and len(pieces) < vocab_size:
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merged = _joined(best)
        if merged not in known:
            known.add(merged)
            pieces.append(merged)
        for word in sorted(where[best]):
            _respell(spelled, word, words[word], best, counts, where)
    return {piece: n for n, piece in enumerate(pieces)}


def count(words: Iterable[str]) -> dict[str, int]:
    """How often each word comes."""
    return dict(collections.Counter(words))


def _joined(pair: Pair) -> str:
    return pair[0] + pair[1].removeprefix("##")


def _respell(
    spelled: dict[str, list[str]],
    word: str,
    times: int,
    pair: Pair,
    counts: "collections.Counter[Pair]",
    where: dict[Pair, set[str]],
) -> None:
    """Merge `pair` in the spelling of one word and keep the counts of pairs true."""
    old = spelled[word]
    new: list[str] = []
    n = 0
    while n < len(old):
        if tuple(old[n : n + 2]) == pair:
            new.append(_joined(pair))
            n += 2
        else:
            new.append(old[n])
            n += 1
    for gone in itertools.pairwise(old):
        counts[gone] -= times
        where[gone].discard(word)
    for come in itertools.pairwise(new):
        counts[come] += times
        where[come].add(word)
    for touched in {*itertools.pairwise(old)}:
        if counts[touched] <= 0:
            del counts[touched]
            del where[touched]
    spelled[word] = new
