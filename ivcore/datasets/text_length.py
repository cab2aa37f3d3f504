"""How long a text is, and which texts are short: the one definition that data sets, reports and searches go by."""

import re

SHORT = 32  # tokens; a longer text is long
# As BERT sets words apart before it looks at its vocabulary: a word, a mark, a Chinese character. Rare words take more.
TOKEN = re.compile(r"[\u3400-\u9fff]|[^\W_\u3400-\u9fff]+|[^\w\s]|_")


def num_tokens(text: str) -> int:
    """Tokens of a text, where each of its words is in the vocabulary.

    >>> num_tokens("A dog, running."), num_tokens("一只狗")
    (5, 3)
    """
    return len(TOKEN.findall(text))


def text_class(text: str) -> str:
    """short or long."""
    return class_of(num_tokens(text))


def class_of(tokens: int) -> str:
    """short or long, by the number of tokens."""
    return "short" if tokens <= SHORT else "long"
