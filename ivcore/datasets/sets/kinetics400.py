"""Kinetics-400, the validation part: zero-shot recognition of 400 human actions."""

from ivcore.datasets.cards import SEE_PAGE, UNVERIFIED, Card, Files
from ivcore.datasets.published import Annotation, Clip, published

FILE = "validate.csv"
CARD = Card(
    name="Kinetics-400",
    task="classification",
    split="validation",
    files={FILE: UNVERIFIED},
    num_captions=400,
    caption_rule="class",
    main_score="top1",
    licence=SEE_PAGE,
    citation="Kay et al.: The Kinetics Human Action Video Dataset, arXiv:1705.06950, 2017",
    url="https://github.com/cvdfoundation/kinetics-dataset",
    notes="Videos vanish from YouTube, so the number scored differs from paper to paper; the report says yours.",
)


def read(files: Files) -> Annotation:
    """Columns label, youtube_id, time_start, time_end; the file is YOUTUBE_START_END.mp4 with six digits a time."""
    return labelled(
        [
            (f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}.mp4", row["label"])
            for row in files.csv(FILE)
        ]
    )


def labelled(pairs: list[tuple[str, str]]) -> Annotation:
    """Clips of (path, class); the classes in alphabetical order, as upstream's depends on the run."""
    classes = sorted({label for _, label in pairs})
    place = {label: n for n, label in enumerate(classes)}
    return Annotation([Clip(path, answers=(place[label],)) for path, label in pairs], classes)


recipe, root, rows = published(__name__, CARD, read)
