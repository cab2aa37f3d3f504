"""Something-Something V2 as a multiple choice: which of 174 templates does the video show?"""

from ivcore.datasets.cards import SEE_PAGE, UNVERIFIED, Card, Files
from ivcore.datasets.published import Annotation, Clip, published

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


def read(files: Files) -> Annotation:
    """A list of {id, template}, and the templates with their numbers; brackets are notation and not words."""
    numbers = files.json(LABELS)
    options = sorted(numbers, key=lambda text: int(numbers[text]))
    place = {text: n for n, text in enumerate(options)}
    clips = [Clip(f"{row['id']}.webm", answers=(place[_plain(row["template"])],)) for row in files.json(FILE)]
    return Annotation(clips, options)


def _plain(template: str) -> str:
    return template.replace("[", "").replace("]", "")


recipe, root, rows = published(__name__, CARD, read)
