"""Words and sentences for datatrove's filters, without a model.

datatrove splits text with spaCy or Stanza, which are large, and some of whose models are
downloaded. Two expressions are enough to count words. Like NLTK, with which FineWeb's thresholds
were found, they make words of the marks around a word, but not of those within: "/etc/fstab," is
a stroke, a word and a comma.
"""

from __future__ import annotations

import regex
from datatrove.utils.text import TERMINAL_PUNCTUATION
from datatrove.utils.word_tokenizers import WordTokenizer

# A sign of a script that sets no spaces is a word.
_SIGN = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_INNER = rf"(?:(?!{_SIGN})\S)*"
_WORD = regex.compile(
    rf"{_SIGN}|(?:(?!{_SIGN})[\p{{L}}\p{{N}}])(?:{_INNER}[\p{{L}}\p{{M}}\p{{N}}])?|(\S)\1*+"
)

_ENDS = regex.escape("".join(sorted(TERMINAL_PUNCTUATION)), special_only=False)
# Possessive, so that a long text without any full stop takes no longer than another.
_SENTENCE = regex.compile(rf"(?:\p{{Lu}}\.|[^{_ENDS}\n])++(?:[{_ENDS}\n]+[\"'”]?)?")


class Words(WordTokenizer):  # type: ignore[misc]  # datatrove has no types
    """Splits any language's text by rules."""

    def word_tokenize(self, text: str) -> list[str]:
        """Words, numbers and punctuation marks."""
        return [found.group() for found in _WORD.finditer(text)]

    def sent_tokenize(self, text: str) -> list[str]:
        """Sentences; a line's end is one's end."""
        return [text[begin:end].strip() for begin, end in self.span_tokenize(text)]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        """Where the sentences are."""
        return [found.span() for found in _SENTENCE.finditer(text) if found.group().strip()]


WORDS = Words()
