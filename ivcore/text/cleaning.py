"""Captions made plain before they are tokenized, as both published models had them.

Source: InternVideo2 multi_modality, dataset/utils.py (pre_text).
"""

import re

DELETED = str.maketrans("", "", ",.'!?\"()*#:;~")  # ASCII only: Chinese punctuation stays
SPACED = str.maketrans("-/", "  ")


def pre_text(caption: str) -> str:
    """The caption in lower case, without punctuation, with single spaces.

    >>> pre_text('Two  dogs -- one black/white;  "playing" #fun ~ 5*3')
    'two dogs one black white playing fun 53'
    >>> pre_text("<person> said: it's 3.5 o'clock?")
    'person said its 35 oclock'
    """
    text = caption.lower().translate(DELETED).translate(SPACED).replace("<person>", "person")
    return re.sub(r"\s{2,}", " ", text).rstrip("\n").strip(" ")
