"""Retrieval on the validation split while a phase trains."""

from collections.abc import Iterable

import numpy as np
import torch

from ivcore.config import Phase, StageConfig
from ivcore.datasets.captions import Captions
from ivcore.errors import UserError
from ivcore.retrieval.embed import Encoder
from ivcore.retrieval.ranking import ranks
from ivcore.train.job import Job
from ivcore.train.source import Source, tokens


def queries(
    captions: Captions, clip_ids: Iterable[str], kind: str, stage: StageConfig, phase: Phase
) -> list[tuple[str, str]]:
    """(clip, caption) of the split val: of videos, in the first language of the phase.

    Raises:
        UserError: if there are none.
    """
    language, text_class = phase.languages[0], "long" if phase.long_share == 1 else "short"
    known = set(clip_ids)
    texts = [(clip, text) for _, clip, text in captions.texts(language, text_class, "val") if clip in known]
    found = [(clip, text) for clip, text in texts if captions.media(clip) == "video"]
    if not found:
        raise UserError(
            f"train.{kind}.validate_every is {stage.validate_every}, but the split val has no {text_class} "
            f"caption in {language}; set it to 0"
        )
    return found


class Validation:
    """R@1 from text to video by similarity, among the clips of the split val, in the first language of the phase."""

    def __init__(self, job: Job, captions: Captions, source: Source) -> None:
        texts = queries(captions, source.clip_ids, job.kind, job.stage, job.phase)
        self.source = source
        self.texts = [text for _, text in texts]
        clips = list(dict.fromkeys(clip for clip, _ in texts))
        self.rows = np.array(source.rows_of(clips))
        self.truth = torch.tensor([clips.index(clip) for clip, _ in texts])

    @torch.no_grad()
    def __call__(self, encoder: Encoder) -> float:
        """R@1 in percent; the model is in eval mode meanwhile."""
        model = encoder.model
        model.train(False)
        text = encoder.texts(self.texts).embedding
        video = encoder.videos(lambda some: tokens(encoder, self.source, self.rows[some].tolist()), len(self.rows))
        model.train()
        return 100 * float((ranks(text.float() @ video.float().T, self.truth) == 1).mean())
