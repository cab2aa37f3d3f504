"""`iv parity`: every recorded topic of a folder, run against our models and compared."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ivcore.errors import UserError
from ivcore.parity import clip, data, published_names, retrieval, s2, settings
from ivcore.parity.recording import NOT_BUILT, Check, Recording, Result, compare, read


def topics() -> dict[str, Callable[[Recording], Iterator[Check]]]:
    """Topic -> the function that yields its comparisons."""
    return {
        "s2_vision": s2.vision,
        "s2_text": s2.text,
        "s2_full": s2.full,
        "s2_retrieval": retrieval.retrieval,
        "clip_vision": clip.vision,
        "clip_small": clip.small,
        "mobileclip_text": clip.mobileclip,
        "llama_text": clip.llama,
        "s2_to_clip": clip.from_s2,
        "data_io": data.data_io,
    }


def run_cases(folder: Path | str, only: str | None = None) -> list[Result]:
    """Run every topic found in `folder` (or only the one named) and compare; float32, on the CPU, eval mode.

    Returns:
        One result a comparison. What is recorded but has no comparison here comes as a result that is not ok, save
        what `NOT_BUILT` names, which is ok with the reason as its note.

    Raises:
        UserError: if the folder holds none of the topics, or a file cannot be read.
    """
    folder = Path(folder)
    wanted = {t: f for t, f in topics().items() if (folder / f"{t}.json").exists() and only in (None, t)}
    names = folder / published_names.FILE
    wants_names = names.exists() and only in (None, published_names.TOPIC)
    if not wanted and not wants_names:
        raise UserError(f"{folder} holds no recording of {only or ', '.join(topics())}")
    found: list[Result] = []
    if wants_names:
        found += [compare(published_names.TOPIC, *check) for check in published_names.published(names)]
    for topic, checks in wanted.items():
        recording = read(folder, topic)
        try:
            settings.check(topic, recording.config)
            found += [compare(topic, *check) for check in checks(recording)]
        except (KeyError, TypeError, ValueError, RuntimeError, UserError) as error:  # the others still have their say
            note = f"stopped by {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            found.append(Result(topic, "(whole topic)", float("nan"), float("nan"), 0.0, False, note))
        found += [_uncompared(topic, name.removeprefix("out/")) for name in recording.unasked()]
        found += [_uncompared(topic, name) for name in recording.results if re.match("uta_loss|vtc_loss_3d/max", name)]
    return found


def _uncompared(topic: str, case: str) -> Result:
    for pattern, reason in {**NOT_BUILT, **data.NOT_BUILT}.items():
        if re.fullmatch(pattern, case):
            return Result(topic, case, 0.0, 0.0, 0.0, True, f"not built: {reason}")
    return Result(topic, case, float("nan"), float("nan"), 0.0, False, "recorded, but nothing here compares it")
