"""The tokenizer of BERT-like encoders: WordPiece, from a tokenizer.json.

A text is cleaned and, in uncased models, lower-cased and stripped of accents; it is cut at spaces,
punctuation and CJK characters; each word becomes the longest pieces of the vocabulary from left to
right (Wu et al. 2016, section 4.1), or the unknown token. So text does not come back from ids, and
nothing is refused: this is for encoders, which only read.

As with language models, text never becomes a control token: "[SEP]" in a text is a bracket, a word
and a bracket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from oneiros.errors import ModelFileError, UnsupportedModelError, quoted
from oneiros.model.hyperparameters import Hyperparameters
from oneiros.model.json_text import read_object

_LONGEST_WORD = 100  # characters; longer words are unknown, unless the file says otherwise
_SURROGATE = re.compile("[\ud800-\udfff]")


class WordPieceTokenizer:
    """Texts to the token ids that an encoder reads.

    Attributes:
        vocabulary_size: ids run from 0 to this.
        start_ids: come before every text, usually [CLS].
        end_ids: come after every text, usually [SEP].
    """

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        *,
        start: Sequence[str] = ("[CLS]",),
        end: Sequence[str] = ("[SEP]",),
        unknown: str = "[UNK]",
        prefix: str = "##",
        longest_word: int = _LONGEST_WORD,
        normalizer: BertNormalizer | None = None,
    ) -> None:
        """Prepare a vocabulary.

        Args:
            vocabulary: piece -> id.
            start: the pieces before every text.
            end: the pieces after every text.
            unknown: the piece that stands for words that the vocabulary cannot express.
            prefix: how pieces inside a word are marked.
            longest_word: characters; longer words are unknown.
            normalizer: default: that of uncased BERT.

        Raises:
            ModelFileError: a piece that is named is not in the vocabulary.
        """
        for piece in (unknown, *start, *end):
            if piece not in vocabulary:
                raise ModelFileError(f"The tokenizer's vocabulary has no piece {quoted(piece)}.")
        self.vocabulary_size = max(vocabulary.values()) + 1
        self.start_ids = [vocabulary[piece] for piece in start]
        self.end_ids = [vocabulary[piece] for piece in end]
        self._pieces = tokenizers.Tokenizer(
            WordPiece(
                dict(vocabulary),
                unk_token=unknown,
                continuing_subword_prefix=prefix,
                max_input_chars_per_word=longest_word,
            )
        )
        self._pieces.normalizer = normalizer if normalizer is not None else BertNormalizer()
        self._pieces.pre_tokenizer = BertPreTokenizer()

    def encode(self, text: str) -> list[int]:
        """Token ids of a text, with those before and after it.

        Half of a surrogate pair, which is no character, counts as U+FFFD.
        """
        found = self._pieces.encode(_SURROGATE.sub("\ufffd", text), add_special_tokens=False)
        return [*self.start_ids, *found.ids, *self.end_ids]


def load_wordpiece(path: Path) -> WordPieceTokenizer:
    """The WordPiece tokenizer in a tokenizer.json. Its truncation and padding are not applied.

    Raises:
        ModelFileError: the file cannot be read or is malformed.
        UnsupportedModelError: it holds a tokenizer of another kind.
    """
    root = Hyperparameters(path.name, read_object(path))
    model = _step(root, "model", "WordPiece")
    normalizer = _step(root, "normalizer", "BertNormalizer")
    _step(root, "pre_tokenizer", "BertPreTokenizer")
    start, end = _template(root)
    lowercase = normalizer.flag("lowercase", True)
    return WordPieceTokenizer(
        _vocabulary(model),
        start=start,
        end=end,
        unknown=model.text("unk_token", "[UNK]"),
        prefix=model.text("continuing_subword_prefix", "##"),
        longest_word=model.integer("max_input_chars_per_word", _LONGEST_WORD),
        normalizer=BertNormalizer(
            clean_text=normalizer.flag("clean_text", True),
            handle_chinese_chars=normalizer.flag("handle_chinese_chars", True),
            strip_accents=normalizer.flag("strip_accents", lowercase),
            lowercase=lowercase,
        ),
    )


def _step(root: Hyperparameters, key: str, kind: str) -> Hyperparameters:
    """One of the tokenizer's steps, which must be of this kind."""
    found = root.get(key)
    if not isinstance(found, dict):
        root.fail(key, "is not an object")
    step = Hyperparameters(f"{root.where}: {key}", found)
    if step.get("type") != kind:
        raise UnsupportedModelError(
            f"{root.describe(key)} is {quoted(str(step.get('type')))}. Supported are the "
            "WordPiece tokenizers of BERT-like encoders."
        )
    return step


def _vocabulary(model: Hyperparameters) -> dict[str, int]:
    found = model.get("vocab")
    if not isinstance(found, dict) or not found:
        model.fail("vocab", "is not an object with pieces")
    most = 4 * len(found) + 1024  # gaps are fine
    for piece, token_id in found.items():
        if type(token_id) is not int or not 0 <= token_id < most:
            model.fail("vocab", f"gives {quoted(piece)} the id {str(token_id)[:40]}")
    return found


def _template(root: Hyperparameters) -> tuple[list[str], list[str]]:
    """The pieces that the post-processor puts before and after one text."""
    match root.get("post_processor"):
        case {"type": "BertProcessing", "cls": [str(start), _], "sep": [str(end), _]}:
            return [start], [end]
        case {"type": "TemplateProcessing", "single": list(found)}:
            parts = found
        case _:
            root.fail("post_processor", "is neither a template nor BERT's")
    before: list[str] = []
    after: list[str] = []
    side = before
    for part in parts:
        match part:
            case {"SpecialToken": {"id": str(piece)}}:
                side.append(piece)
            case {"Sequence": {"id": "A"}} if side is before:
                side = after
            case _:
                root.fail("post_processor", "has a part that is not known")
    if side is before:
        root.fail("post_processor", "leaves the text out")
    return before, after
