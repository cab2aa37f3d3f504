"""HMDB51, test split 1: zero-shot recognition of 51 human actions."""

from ivcore.datasets.cards import SEE_PAGE, UNVERIFIED, Card, Files
from ivcore.datasets.published import Annotation, published
from ivcore.datasets.sets.kinetics400 import labelled

ENDING = "_test_split1.txt"
TEST = "2"  # 1: training, 0: not in this split
CARD = Card(
    name="HMDB51",
    task="classification",
    split="test 1",
    files={f"*{ENDING}": UNVERIFIED},
    num_videos=1530,
    num_captions=51,
    caption_rule="class",
    main_score="top1",
    licence=SEE_PAGE,
    citation="Kuehne, Jhuang, Garrote, Poggio, Serre: HMDB, ICCV 2011",
    url="https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/",
    notes="data.annotations is the folder of the split files, one a class.",
)


def read(files: Files) -> Annotation:
    """A file a class, brush_hair_test_split1.txt, with lines of NAME.avi 2."""
    pairs = []
    for file in files[f"*{ENDING}"]:
        name = file.name.removesuffix(ENDING)
        for line in file.read_text(encoding="utf-8").splitlines():
            path, _, part = line.strip().rpartition(" ")
            if part == TEST:
                pairs.append((f"{name}/{path.strip()}", name.replace("_", " ")))
    return labelled(pairs)


recipe, root, rows = published(__name__, CARD, read)
