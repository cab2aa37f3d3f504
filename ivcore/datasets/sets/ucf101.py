"""UCF101, test split 1: zero-shot recognition of 101 human actions."""

import re
from pathlib import PurePosixPath

from ivcore.datasets.cards import SEE_PAGE, UNVERIFIED, Card, Files
from ivcore.datasets.published import Annotation, published
from ivcore.datasets.sets.kinetics400 import labelled

FILE = "testlist01.txt"
CARD = Card(
    name="UCF101",
    task="classification",
    split="test 1",
    files={FILE: UNVERIFIED},
    num_videos=3783,
    num_captions=101,
    caption_rule="class",
    main_score="top1",
    licence=SEE_PAGE,
    citation="Soomro, Zamir, Shah: UCF101, arXiv:1212.0402, 2012",
    url="https://www.crcv.ucf.edu/data/UCF101.php",
)


def read(files: Files) -> Annotation:
    """Lines of ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi; the class is the folder, its words set apart."""
    paths = files.text(FILE).split()
    return labelled([(path, _words(PurePosixPath(path).parts[0])) for path in paths if path.endswith(".avi")])


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()


recipe, root, rows = published(__name__, CARD, read)
