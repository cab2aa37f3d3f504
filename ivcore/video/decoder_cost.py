"""What each decoder takes for the same clips, measured on a few, so that choosing one is no guess."""

import dataclasses
import random
import statistics
from collections.abc import Sequence
from typing import Any

from ivcore.video import pool
from ivcore.video.decode_file import Task, decode_file

DRAWN, ONE_IN = 8, 50  # clips at most, and one in so many: the measuring stays a few percent of the decode
DECODERS = {"decord": "other", "pyav": "pyav"}  # how each is asked for: `other` knows what decord is right on


def drawn(clips: Sequence[Any]) -> list[Any]:
    """A few clips, the same ones each time; none where there are less than ONE_IN."""
    return random.Random(0).sample(clips, min(DRAWN, len(clips) // ONE_IN))


def decoder_ms(tasks: list[Task]) -> dict[str, float]:
    """CPU milliseconds a clip of each decoder in a worker, over the `clips` that both decode; {} when there is none.

    `only_pyav` counts the clips that decord cannot be trusted with.
    """
    outcomes = list(pool.run(taken, tasks[:1] + tasks, 1, lambda task: 2 * task.deadline_s))[1:]  # the first warms up
    got = [g for g in outcomes if isinstance(g, dict)]
    both = [g for g in got if g.keys() == DECODERS.keys()]
    if not both:
        return {}
    means = {name: round(1e3 * statistics.mean(g[name] for g in both), 2) for name in DECODERS}
    return {**means, "clips": len(both), "only_pyav": sum(g.keys() == {"pyav"} for g in got)}


def taken(task: Task) -> dict[str, float]:
    """CPU seconds of each decoder that gave the frames."""
    out = {}
    for name, asked in DECODERS.items():
        began = pool.cpu_s()
        got = decode_file(dataclasses.replace(task, decoder=asked))
        if got.decoder is not None and got.decoder.startswith(name):
            out[name] = pool.cpu_s() - began
    return out
