"""What chance decides in a step, as a pure function of seed, phase and step: nothing random has to be saved.

Masks are drawn for the whole batch and each part of it takes its rows, so they do not depend on how many processes
share the batch. Negatives of matching come from a part's own clips, as published, and are drawn for that part.
"""

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from ivcore.config import Phase
from ivcore.losses.mlm import mlm_corrupt
from ivcore.losses.vtm import vtm_negatives
from ivcore.models.masking import drop_mask, drop_scores
from ivcore.text.tokenizer import Tokenizer

MLM_PROBABILITY = 0.5  # as published


@dataclass(frozen=True)
class Draws:
    """The draws of a step for part `part` of a batch that is worked through in `parts` equal parts.

    Shapes: B rows of this part, N patches, L text tokens (at most `text_len`).
    """

    seed: int
    phase: str
    step: int
    text_len: int
    part: int = 0
    parts: int = 1

    def generator(self, what: str, device: torch.device | str = "cpu") -> torch.Generator:
        """A generator of its own for each thing that is drawn."""
        return torch.Generator(device).manual_seed(self._seed(what))

    def seed_dropout(self) -> None:
        """Seed torch's global generators, which dropout and stochastic depth draw from."""
        torch.manual_seed(self._seed(f"noise/{self.part}"))

    def kept_tokens(self, num_videos: int, num_patches: int, ratio: float) -> Tensor:
        """int64 [B, 1+K], the tokens that are not dropped, in growing order; on the CPU."""
        scores = drop_scores(self.parts * num_videos, num_patches, self.generator("tokens"))
        dropped = drop_mask(scores[self.rows(num_videos)], ratio)
        return dropped.byte().argsort(dim=1, stable=True)[:, : 1 + num_patches - int(ratio * num_patches)]

    def masked_words(self, ids: Tensor, mask: Tensor, tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
        """(corrupted ids, labels), int64 [B, L] each; the padding of a batch plays no part in them."""
        rows, length = self.rows(len(ids)), ids.shape[1]
        all_ids, all_mask = (own.new_zeros(self.parts * len(own), self.text_len) for own in (ids, mask))
        all_ids[rows, :length], all_mask[rows, :length] = ids, mask
        size, mask_id, special = tokenizer.vocab_size, tokenizer.mask_id, tokenizer.special_ids
        assert mask_id is not None
        draw = self.generator("words")
        corrupted, labels = mlm_corrupt(all_ids, all_mask, size, mask_id, special, MLM_PROBABILITY, draw)
        return corrupted[rows, :length], labels[rows, :length]

    def negatives(self, video: Tensor, text: Tensor, temp: Tensor, samples: Tensor, phase: Phase) -> list[Tensor]:
        """(video for each text, text for each video), int64 [B] each: hard ones, some replaced by even draws.

        From nothing, matching learns nothing if all it meets are swaps. Drawn on the device of the vectors, so that no
        step waits for the host: a GPU draws others than a CPU, the same ones each time.
        """
        draw = self.generator(f"negatives/{self.part}", video.device)
        hard = vtm_negatives(video, text, temp, samples, draw)
        if not phase.even_negatives:
            return list(hard)
        even = vtm_negatives(video, text, 1e6, samples, draw)
        easy = torch.rand(len(samples), generator=draw, device=draw.device) < phase.even_negatives
        return [torch.where(easy, e, h) for e, h in zip(even, hard, strict=True)]

    def rows(self, count: int) -> slice:
        """The rows of this part, of `count`, in the whole batch."""
        return slice(self.part * count, (self.part + 1) * count)

    def _seed(self, what: str) -> int:
        text = f"{self.seed}/{self.phase}/{self.step}/{what}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
