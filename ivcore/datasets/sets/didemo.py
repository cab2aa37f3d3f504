"""DiDeMo, the test split, as paragraphs: the descriptions of a video joined, its first thirty seconds."""

from ivcore.datasets.cards import SEE_PAGE, Card, Files
from ivcore.datasets.published import Annotation, Clip, published

FILE = "test_data.json"
SECONDS = 30.0  # upstream's trimmed30: of a longer video no more is read
CARD = Card(
    name="DiDeMo",
    split="test",
    files={FILE: "1891c04ec48b3d364c739594b2b6413806b74bd9027c092d896e7ebb930ff1cd"},
    content="4e9d144841ce89c8aab70d37915439948cfb8521cf9ac390ece404c23a7fb1f4",
    num_videos=1004,
    num_captions=1004,
    caption_rule="paragraph",
    text_len=64,
    frames=8,
    licence=SEE_PAGE,
    citation="Hendricks, Wang, Shechtman, Sivic, Darrell, Russell: Localizing Moments in Video with Natural Language, "
    "ICCV 2017",
    url="https://github.com/LisaAnne/LocalizingMoments/tree/master/data",
    notes="4021 descriptions of 1037 file names, 33 of which name the same Flickr video with another ending: "
    "1004 videos, as in the papers.",
)


def read(files: Files) -> Annotation:
    """A list of descriptions, each with the file name of its video; joined in the order of the file."""
    said: dict[str, list[str]] = {}
    path: dict[str, str] = {}
    for row in files.json(FILE):
        name, _, ending = row["video"].rpartition(".")  # 31 names end in a dot
        path.setdefault(name, f"{name}.{ending or 'mp4'}")
        said.setdefault(name, []).append(row["description"])
    return Annotation([Clip(path[n], clip_id=n, captions=tuple(texts), end_s=SECONDS) for n, texts in said.items()])


recipe, root, rows = published(__name__, CARD, read)
