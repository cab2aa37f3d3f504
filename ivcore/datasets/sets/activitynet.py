"""ActivityNet Captions, validation part 1, as paragraphs: the sentences of a video joined."""

from ivcore.datasets.cards import SEE_PAGE, UNVERIFIED, Card, Files
from ivcore.datasets.published import Annotation, Clip, published

FILE = "val_1.json"
CARD = Card(
    name="ActivityNet Captions",
    split="val_1",
    files={FILE: UNVERIFIED},
    num_videos=4917,
    num_captions=4917,
    caption_rule="paragraph",
    text_len=150,
    frames=8,
    licence=SEE_PAGE,
    citation="Krishna, Hata, Ren, Fei-Fei, Niebles: Dense-Captioning Events in Videos, ICCV 2017",
    url="https://cs.stanford.edu/people/ranjaykrishna/densevid/",
)


def read(files: Files) -> Annotation:
    """By v_YOUTUBE: duration, timestamps, sentences."""
    videos = files.json(FILE)
    return Annotation(
        [Clip(f"{n}.mp4", captions=tuple(s.strip() for s in video["sentences"])) for n, video in videos.items()]
    )


recipe, root, rows = published(__name__, CARD, read)
