"""ActivityNet Captions, validation part 1, as paragraphs: the sentences of a video joined."""

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


def read(files: Files, data: DataConfig) -> Annotation:
    """By v_YOUTUBE: duration, timestamps, sentences."""
    videos = json.loads(files[FILE][0].read_text(encoding="utf-8"))
    return Annotation(
        [Clip(f"{n}.mp4", captions=tuple(s.strip() for s in video["sentences"])) for n, video in videos.items()]
    )


recipe, root, rows = published(__name__, CARD, read)
