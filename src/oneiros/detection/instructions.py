"""Phrases that tell an assistant what to do, as they stand in injections.

The wordings are those of published attacks: "ignore previous instructions" (Perez and Ribeiro 2022,
arXiv 2211.09527), turns and system prompts that are not there (Greshake et al. 2023, arXiv
2302.12173), messages that want a task done first (Debenedetti et al. 2024, arXiv 2406.13352).
Every repetition is bounded, so that a search takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

_ABOUT = (
    r"(?:instructions?|directions?|directives?|prompts?|guidelines?|commands?|orders|"
    r"rules|(?:the|your|these|this)\s(?:task|conversation|content|data|text|request)|"
    r"previous\s(?:text|messages?|content)|rest of)"
)
_ASSISTANT = (
    r"(?:a\.?i\.?|assistant|language model|llm|chatbot|chat ?gpt|gpt-?\d?|agent|copilot|bot)"
)
_WORDS: Final = (
    # Take back what the user said.
    rf"(?:ignore|disregard|forget|override|overlook|bypass)\s(?:[\w'-]+[\s,]+){{0,4}}?{_ABOUT}\b",
    r"ignore any (?:previous|prior|following)\b",
    r"never ?mind(?:\s|[.,!]+\s?)(?:that|the above|ignore|print|say|forget)",
    r"stop everything\b",
    r"instead of (?:summari[sz]ing|translating|answering|the above)",
    r"new (?:system )?(?:instructions?|task|directive)s?\s?[:!]",
    # Be somebody else.
    r"you (?:are|will be|must act as) (?:now|no longer|henceforth)\b",
    r"from now on,? (?:you|act|respond|answer|always)\b",
    r"pretend (?:that )?you(?:'re| are)\b",
    r"(?:developer|debug|admin|god|dan|jailbreak) mode\b",
    # Speak to the assistant.
    rf"(?:dear|hey|hello|attention|note (?:to|for)|message (?:to|for)|"
    rf"instructions? (?:to|for)|important[:!]?),? (?:the |all |any |every |this )?{_ASSISTANT}\b",
    rf"(?:if you are|as) an? {_ASSISTANT}\b.{{0,60}}\b(?:must|should|please|ignore|include|do)\b",
    r"before you (?:can )?(?:solve|continue|proceed|answer|complete|finish)\b",
    r"(?:do|perform|complete) the following (?:first|instead|before)",
    r"important message (?:from|to|for)\b",
    # Keep it from the user, or carry something away.
    r"(?:do not|don't|never|without) (?:tell|telling|inform|informing|mention|mentioning|"
    r"alert|alerting|notify|notifying|show)(?:ing)? (?:this |it |that )?(?:to )?the user",
    r"(?:reveal|repeat|print|output|show|leak) (?:me )?(?:your|the) "
    r"(?:system|initial|hidden|original|secret) (?:prompt|instructions?|message)",
    r"(?:append|include|attach|add|send|forward|exfiltrate|upload|leak) (?:[\w'-]+\s){0,5}?"
    r"(?:passwords?|secrets?|credentials?|api keys?|conversation|chat history)\b",
    r"(?:print|output|respond with|reply with) (?:only|exactly|the following|just)\b",
    r"(?:call|invoke|execute|run) the (?:[\w-]+\s){0,3}?(?:tool|function|command)\b",
    r"system (?:prompt|override|message|instruction)s?\b\s?[:\]>]",
    r"(?:end|begin(?:ning)?|start) of (?:\w+\s)?(?:session|instructions?|system prompt|document)\b",
)
# Marks of turns that a text has no business with.
_MARKS: Final = (
    r"<\|?(?:im_start|im_end|system|endoftext|eot_id|assistant|user)\|?>",
    r"\[/?INST\]|<</?SYS>>|</?(?:instructions?|information|system)>|\[ADMIN\b",
    r"^[\t\x20]{0,8}(?:### ?)?(?:system|assistant|instruction|admin) ?: ",
)
_PHRASE: Final = re.compile(
    rf"\b(?:{'|'.join(_WORDS)})|{'|'.join(_MARKS)}".replace(" ", r"\s"),
    re.IGNORECASE | re.MULTILINE,
)


def instruction_phrases(text: str) -> Iterator[re.Match[str]]:
    """The phrases, in their order."""
    return _PHRASE.finditer(text)


def count_instructions(text: str) -> int:
    """How many there are."""
    return sum(1 for _ in instruction_phrases(text))
