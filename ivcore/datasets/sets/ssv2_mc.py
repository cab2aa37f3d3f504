"""Something-Something V2 as a multiple choice: which of 174 templates does the video show?"""

import json

from ivcore.config import DataConfig
from ivcore.datasets.cards import (
    SEE_PAGE,
    UNVERIFIED,
    Annotation,
    Card,
    Clip,
    Files,
    published,
)

FILE, LABELS = "something-something-v2-validation.json", "something-something-v2-labels.json"
CARD = Card(
    name="Something-Something V2, multiple choice",
    task="multiple_choice",
    split="validation",
    files={FILE: UNVERIFIED, LABELS: UNVERIFIED},
    num_videos=24777,
    num_captions=174,
    caption_rule="option",
    main_score="accuracy",
    licence=SEE_PAGE,
    citation='Goyal et al.: The "Something Something" Video Database, ICCV 2017',
    url="https://developer.qualcomm.com/software/ai-datasets/something-something",
    notes="All 174 templates are options of every video, without prompts.",
)


def read(files: Files, data: DataConfig) -> Annotation:
    """A list of {id, template}, and the templates with their numbers; brackets are notation and not words."""
    numbers = json.loads(files[LABELS][0].read_text(encoding="utf-8"))
    options = sorted(numbers, key=lambda text: int(numbers[text]))
    place = {text: n for n, text in enumerate(options)}
    clips = [
        Clip(f"{row['id']}.webm", answers=(place[_plain(row["template"])],))
        for row in json.loads(files[FILE][0].read_text(encoding="utf-8"))
    ]
    return Annotation(clips, options)


def _plain(template: str) -> str:
    return template.replace("[", "").replace("]", "")


recipe, root, rows = published(__name__, CARD, read)
