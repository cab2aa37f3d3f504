"""Charades: which of 157 actions happen in the video; several do, so the score is mean average precision."""

import csv

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


def read(files: Files, data: DataConfig) -> Annotation:
    """Columns id and actions (c092 11.90 21.20;c147 0.00 12.60, times not read); classes are lines of c000 Name."""
    lines = files[CLASSES][0].read_text(encoding="utf-8").splitlines()
    classes = dict(line.split(" ", 1) for line in lines if line.strip())
    place = {code: n for n, code in enumerate(classes)}
    with files[FILE][0].open(newline="", encoding="utf-8") as f:
        clips = [
            Clip(f"{row['id']}.mp4", answers=tuple(sorted({place[a.split()[0]] for a in row["actions"].split(";")})))
            if row["actions"]
            else Clip(f"{row['id']}.mp4")
            for row in csv.DictReader(f)
        ]
    return Annotation(clips, list(classes.values()))


recipe, root, rows = published(__name__, CARD, read)
