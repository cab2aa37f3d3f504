"""Multiple choice in upstream's own format: a json list of videos with options and an answer.

Source: InternVideo2 multi_modality, dataset/qa_dataset.py.
"""

import dataclasses
from typing import Any

from ivcore.datasets.cards import Files
from ivcore.datasets.published import Annotation, Clip, published
from ivcore.datasets.sets import upstream
from ivcore.errors import UserError

CARD = dataclasses.replace(
    upstream.CARD,
    name="Upstream's json, multiple choice",
    task="multiple_choice",
    caption_rule="option",
    main_score="accuracy",
    notes='[{"video": path, "option": list of texts, "answer": place of the true one, or 0 and 1 for each option}, '
    "...]; MSRVTT-MC has five options a video, SSv2-MC the same 174 and Charades-MC the same 157 for all (where "
    "several are true the score is mean average precision).",
)


def read(files: Files) -> Annotation:
    """Options are shared if every entry has the same ones; a video may be asked more than once."""
    found = [
        (path, upstream.texts(entry, "option", where), _answers(entry, where))
        for entry, [path, *_], where in upstream.entries(files)
    ]
    first = found[0][1]
    alike = all(options == first for _, options, _ in found)
    times: dict[str, int] = {}
    clips = []
    for path, options, answers in found:
        times[path] = times.get(path, 0) + 1
        clip_id = path if times[path] == 1 else f"{path}#{times[path]}"
        clips.append(Clip(path, clip_id=clip_id, options=() if alike else tuple(options), answers=answers, family=path))
    return Annotation(clips, first if alike else [])


def _answers(entry: dict[str, Any], where: str) -> tuple[int, ...]:
    """Places of the true options; UserError unless the answer is a place, or 0 or 1 for each option."""
    answer, num = entry.get("answer"), len(entry["option"])
    if isinstance(answer, int) and 0 <= answer < num:
        return (answer,)
    if isinstance(answer, list) and len(answer) == num and set(answer) <= {0, 1}:
        return tuple(n for n, is_true in enumerate(answer) if is_true)
    raise UserError(f"{where}: answer = {answer!r:.60} is neither a place in the {num} options nor 0 or 1 for each")


recipe, root, rows = published(__name__, CARD, read)
