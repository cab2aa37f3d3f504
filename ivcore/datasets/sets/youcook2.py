"""YouCook2, the validation clips: a step of a recipe each, cut out of long videos."""

import dataclasses

from ivcore.datasets.cards import SEE_PAGE, Card, Files
from ivcore.datasets.published import Annotation, Clip, published

FILE = "validation_youcook.csv"
CARD = Card(
    name="YouCook2",
    split="validation clips (MIL-NCE)",
    files={FILE: "57d6bdea77c70114cbfad5b057e9500173f14b1c3a0f9c51bd1a716cd504cac1"},
    content="3d387edc3842cf12d39e1cb6e11629e3c1f14cc269e6bbdb32657a276c23198e",
    num_videos=3349,
    num_captions=3350,
    caption_rule="each",
    text_len=32,
    licence=SEE_PAGE,
    citation="Zhou, Xu, Corso: Towards Automatic Learning of Procedures from Web Instructional Videos, AAAI 2018; "
    "the list: Miech et al.: End-to-End Learning of Visual Representations, CVPR 2020",
    url="https://github.com/antoine77340/MIL-NCE_HowTo100M",
    notes="Two of the 3350 rows are the same stretch of a video: one clip with two captions. The clips of a video are "
    "one family. Upstream has no scores here; the text length is its default.",
)


def read(files: Files) -> Annotation:
    """Columns end, start, task, text, video_id; seconds in VIDEO_ID.mp4."""
    said: dict[tuple[str, str, str], list[str]] = {}
    for row in files.csv(FILE):
        said.setdefault((row["video_id"], row["start"], row["end"]), []).append(row["text"])
    clips = []
    for (video, start, end), texts in said.items():
        clip = Clip(f"{video}.mp4", f"{video}@{start}-{end}", tuple(texts), family=video)
        clips.append(dataclasses.replace(clip, start_s=float(start), end_s=float(end)))
    return Annotation(clips)


recipe, root, rows = published(__name__, CARD, read)
