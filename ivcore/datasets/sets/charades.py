"""Charades: which of 157 actions happen in the video; several do, so the score is mean average precision."""

from ivcore.datasets.cards import SEE_PAGE, UNVERIFIED, Card, Files
from ivcore.datasets.published import Annotation, Clip, published

FILE, CLASSES = "Charades_v1_test.csv", "Charades_v1_classes.txt"
CARD = Card(
    name="Charades",
    task="multiple_choice",
    split="test",
    files={FILE: UNVERIFIED, CLASSES: UNVERIFIED},
    num_videos=1863,
    num_captions=157,
    caption_rule="option",
    main_score="map",
    licence=SEE_PAGE,
    citation="Sigurdsson, Varol, Wang, Farhadi, Laptev, Gupta: Hollywood in Homes, ECCV 2016",
    url="https://prior.allenai.org/projects/charades",
    notes="All 157 actions are options of every video, without prompts. A video without an action is not asked.",
)


def read(files: Files) -> Annotation:
    """Columns id and actions (c092 11.90 21.20;c147 0.00 12.60, times not read); classes are lines of c000 Name."""
    lines = files.text(CLASSES).splitlines()
    classes = dict(line.split(" ", 1) for line in lines if line.strip())
    place = {code: n for n, code in enumerate(classes)}
    clips = []
    for row in files.csv(FILE):
        answers = {place[action.split()[0]] for action in row["actions"].split(";") if action}
        clips.append(Clip(f"{row['id']}.mp4", answers=tuple(sorted(answers))))
    return Annotation(clips, list(classes.values()))


recipe, root, rows = published(__name__, CARD, read)
