"""Retrieval on the validation split while a phase trains."""

import numpy as np
import torch

from ivcore.datasets.captions import Captions
from ivcore.errors import UserError
from ivcore.retrieval.embed import Encoder
from ivcore.retrieval.ranking import ranks
from ivcore.train.job import Job
from ivcore.train.source import Source, tokens


class Validation:
    """R@1 from text to video by similarity, among the clips of the split val, in the first language of the phase."""

    def __init__(self, job: Job, captions: Captions, source: Source) -> None:
        language, kind = job.phase.languages[0], "long" if job.phase.long_share == 1 else "short"
        known = {clip for clip in source.clip_ids if captions.media(clip) == "video"}
        texts = [(clip, text) for _, clip, text in captions.texts(language, kind, "val") if clip in known]
        if not texts:
            raise UserError(
                f"train.{job.kind}.validate_every is {job.stage.validate_every}, but the split val has no {kind} "
                f"caption in {language}; set it to 0"
            )
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
