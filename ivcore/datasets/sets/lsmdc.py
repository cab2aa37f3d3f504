"""LSMDC, the thousand clips of the 2016 retrieval challenge: one sentence of audio description each."""

from ivcore.datasets.cards import UNVERIFIED, Card, Files
from ivcore.datasets.published import Annotation, Clip, published

FILE = "LSMDC16_challenge_1000_publictect.csv"
CARD = Card(
    name="LSMDC",
    split="1k test (LSMDC16 challenge)",
    files={FILE: UNVERIFIED},
    num_videos=1000,
    num_captions=1000,
    caption_rule="each",
    text_len=96,
    frames=8,
    licence="by agreement with its makers, see the data set's page",
    citation="Rohrbach, Torabi, Rohrbach, Tandon, Pal, Larochelle, Courville, Schiele: Movie Description, IJCV 2017",
    url="https://sites.google.com/site/describingmovies/",
    notes="Text length 96 as in upstream's first config; a later one lost it and took 32.",
)


def read(files: Files) -> Annotation:
    """Tab-separated: the clip's name, four times, the sentence; the folder is the name without its times."""
    lines = files[FILE][0].read_text(encoding="utf-8", errors="replace").splitlines()
    fields = [line.split("\t") for line in lines if line.strip()]
    clips = []
    for name, *_, sentence in fields:
        movie = name.rsplit("_", 1)[0]
        clips.append(Clip(f"{movie}/{name}.avi", clip_id=name, captions=(sentence,), family=movie))
    return Annotation(clips)


recipe, root, rows = published(__name__, CARD, read)
