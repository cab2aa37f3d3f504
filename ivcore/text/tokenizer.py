"""Captions to token ids, under the rules of the published text encoders.

bert (s2): [CLS] in front and no [SEP] behind, padded with [PAD] = 0. llama (clip): "summarize:" in front of the text,
begin = 1, end = 2, padded on the right with 0; truncation keeps the end. Both lower-case and split Han characters.
clip_bpe (clip-S14, B14, L14): CLIP's byte pairs between its begin and end, padded with 0 to the full length, always:
that tower stretches its position table over shorter rows.
B captions, L tokens.
"""

import hashlib
from pathlib import Path
from typing import Literal

import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers
from torch import Tensor

from ivcore.errors import UserError
from ivcore.text import wordpieces
from ivcore.text.cleaning import pre_text

Kind = Literal["bert", "llama", "clip_bpe"]
FILE = "tokenizer.json"
SPECIAL: dict[str, tuple[str, ...]] = {
    "bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "llama": ("<unk>", "<s>", "</s>"),
    "clip_bpe": ("<|startoftext|>", "<|endoftext|>"),
}
UNKNOWN = {"bert": "[UNK]", "llama": "<unk>"}
PREFIX = {"bert": "", "llama": "summarize:", "clip_bpe": ""}


class Tokenizer:
    """A vocabulary and the rules of one text encoder."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """`backend` knows the pieces; which special pieces it has says which rules hold."""
        self.backend = backend
        known: tuple[tuple[Kind, str], ...] = (("bert", "[CLS]"), ("clip_bpe", "<|endoftext|>"))
        self.kind: Kind = next((k for k, piece in known if backend.token_to_id(piece) is not None), "llama")
        found = [backend.token_to_id(piece) for piece in SPECIAL[self.kind]]
        self.special_ids: tuple[int, ...] = tuple(id for id in found if id is not None)
        if None in found or (self.kind == "llama" and found != [0, 1, 2]):
            raise UserError(f"the vocabulary lacks one of {', '.join(SPECIAL[self.kind])}, or has it elsewhere")
        self.pad_id = 0 if self.kind == "clip_bpe" else self.special_ids[0]
        self.mask_id: int | None = self.special_ids[4] if self.kind == "bert" else None
        self.vocab_size: int = backend.get_vocab_size()

    @classmethod
    def train(cls, captions: list[str], vocab_size: int, kind: Kind) -> "Tokenizer":
        """A tokenizer whose pieces are learnt from captions; the same captions give the same bytes."""
        split = wordpieces_of({UNKNOWN[kind]: 0}, kind)
        words: list[str] = []
        for caption in captions:
            text = split.normalizer.normalize_str(PREFIX[kind] + pre_text(caption))
            words += [word for word, _ in split.pre_tokenizer.pre_tokenize_str(text)]
        if not words:
            raise UserError("there is not one word to train a tokenizer on; the data set needs captions")
        return cls(wordpieces_of(wordpieces.learn(wordpieces.count(words), vocab_size, SPECIAL[kind]), kind))

    def save(self, folder: Path) -> Path:
        """Write tokenizer.json into the folder; the path of it."""
        path = folder / FILE
        path.write_text(self.backend.to_str(), encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: Path) -> "Tokenizer":
        """The tokenizer of a folder; UserError when there is none."""
        try:
            text = (folder / FILE).read_text(encoding="utf-8")
            return cls(tokenizers.Tokenizer.from_str(text))
        except FileNotFoundError:
            raise UserError(f"no tokenizer at {folder / FILE}; give a folder that holds one") from None
        except (UnicodeDecodeError, ValueError) as e:
            raise UserError(f"{folder / FILE} is no tokenizer: {e}") from None
        except Exception as e:  # the library raises bare Exception for a file it cannot read
            if type(e) is not Exception:
                raise
            raise UserError(f"{folder / FILE} is no tokenizer: {e}") from None

    @property
    def sha256(self) -> str:
        """Hex sha256 of what `save` writes."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()

    def encode(self, texts: list[str], max_len: int) -> tuple[Tensor, Tensor]:
        """Token ids and mask (1 = a token), int64 [B, L], padded to the longest of the batch (clip_bpe: to max_len).

        The texts are made plain with pre_text first.
        """
        lists = self.ids([PREFIX[self.kind] + pre_text(text) for text in texts], max_len)
        longest = max_len if self.kind == "clip_bpe" else max(map(len, lists), default=0)
        ids = torch.full((len(lists), longest), self.pad_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for row, some in enumerate(lists):
            ids[row, : len(some)] = torch.tensor(some)
            mask[row, : len(some)] = 1
        return ids, mask  # [B, L]

    def ids(self, texts: list[str], max_len: int) -> list[list[int]]:
        """Ids of texts taken as they are, special tokens included, at most max_len each."""
        pieces = [e.ids for e in self.backend.encode_batch(texts, add_special_tokens=False)]
        if self.kind == "bert":
            return [[self.special_ids[2], *some[: max_len - 1]] for some in pieces]
        begin, end = self.special_ids[-2:]
        return [[begin, *some[: max_len - 2], end] for some in pieces]


def wordpieces_of(vocab: dict[str, int], kind: Kind) -> tokenizers.Tokenizer:
    """WordPiece over this vocabulary with BERT's normalizer: lower case, no accents, Han characters apart."""
    out = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=UNKNOWN[kind], max_input_chars_per_word=100))
    out.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, lowercase=True)
    out.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return out
