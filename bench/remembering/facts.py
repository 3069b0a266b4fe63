"""A conversation of 500 turns in which 50 facts are told, and the questions about them.

The other turns are questions and answers that people wrote (Dolly and HH-RLHF, as selected by
llm-foundry), shortened to what one types in a chat.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

_LONGEST = 400  # characters of a message


@dataclass(frozen=True, slots=True)
class Told:
    """A fact: what the user says, and what is asked about it later."""

    said: str
    question: str
    answer: str  # what a right reply holds, in one of several forms with "/" between


@dataclass(frozen=True, slots=True)
class Turn:
    """What a user says, and what is answered."""

    user: str
    assistant: str
    fact: Told | None = None


_FACTS = """\
My sister's name is Philippa.|What is my sister's name?|Philippa
I was born in Tromsø.|In which town was I born?|Tromsø
Our dog is called Biscuit.|What is our dog called?|Biscuit
I'm allergic to hazelnuts, so never suggest anything with them.|What am I allergic to?|hazelnut
My favourite composer is Rameau.|Who is my favourite composer?|Rameau
The code of the garage door is 7319.|What is the code of the garage door?|7319
My dentist is Dr Okonkwo.|Who is my dentist?|Okonkwo
We are moving to Ghent in spring.|To which city are we moving?|Ghent
I play the bassoon in an amateur orchestra.|Which instrument do I play?|bassoon
My son starts school on 4 September.|On which day does my son start school?|4 September/September 4
The invoice for the roof was 8,450 euros.|How much was the invoice for the roof?|8,450
My blood type is AB negative.|What is my blood type?|AB neg
The wifi at the cabin is called Larkspur.|What is the wifi at the cabin called?|Larkspur
My brother works as a glazier.|What does my brother work as?|glazier
I bought the red bicycle in Utrecht.|Where did I buy the red bicycle?|Utrecht
My passport expires in November 2031.|When does my passport expire?|November 2031
Our neighbour upstairs is Mrs Castellano.|Who is our neighbour upstairs?|Castellano
I wrote my thesis about lichens.|What did I write my thesis about?|lichen
My boss is on leave until the 22nd of March.|Until when is my boss on leave?|22
The meeting room with the good screen is B417.|Which meeting room has the good screen?|B417
My grandmother grew up in Valparaíso.|Where did my grandmother grow up?|Valpara
I take my coffee with oat milk.|How do I take my coffee?|oat
My car's number plate is KX62 RVT.|What is my car's number plate?|KX62
I weigh 71 kilos at the moment.|How much do I weigh?|71
My best friend's wedding is in Lisbon.|Where is my best friend's wedding?|Lisbon
The book I'm reading is Middlemarch.|Which book am I reading?|Middlemarch
My gym membership costs 39 pounds a month.|What does my gym membership cost a month?|39
I once broke my left ankle skiing.|What did I break when skiing?|ankle
My cat's vet is in Harbour Street.|In which street is my cat's vet?|Harbour
I keep the spare key under the blue flowerpot.|Where do I keep the spare key?|flowerpot
My son's teacher is called Mr Abernathy.|What is my son's teacher called?|Abernathy
Our anniversary is on 17 June.|When is our anniversary?|17 June/June 17
The project at work is codenamed Juniper.|What is the codename of the project at work?|Juniper
I'm learning Georgian in the evenings.|Which language am I learning in the evenings?|Georgian
My shoe size is 43.|What is my shoe size?|43
The plumber we liked was called Tadeusz.|What was the plumber called that we liked?|Tadeusz
I planted a quince tree in the garden.|Which tree did I plant in the garden?|quince
My flight number on Friday is SK1429.|What is my flight number on Friday?|SK1429
My aunt runs a bakery in Bergamo.|What does my aunt run?|baker
I sold my old camera for 260 dollars.|For how much did I sell my old camera?|260
My landlord's name is Ferreira.|What is my landlord's name?|Ferreira
My record over ten kilometres is 47 minutes.|What is my record over ten kilometres?|47
We named the boat Halcyon.|What did we name the boat?|Halcyon
My doctor told me to take vitamin D.|Which vitamin did my doctor tell me to take?|vitamin D
The parcel locker number is 88.|What is the number of the parcel locker?|88
My nephew collects fossils.|What does my nephew collect?|fossil
I went to university in Aberdeen.|Where did I go to university?|Aberdeen
The tenants pay the rent on the ninth.|On which day do the tenants pay the rent?|ninth
My wife's favourite flower is the peony.|What is my wife's favourite flower?|peon
My printer only works with cartridge 903XL.|Which cartridge does my printer work with?|903XL"""


def facts() -> list[Told]:
    """The 50 facts."""
    return [Told(*line.split("|")) for line in _FACTS.splitlines()]


def conversation(data: Path, turns: int, told: int, seed: int = 1) -> list[Turn]:
    """A conversation: facts at random places of all but its last tenth, between other turns.

    Args:
        data: the folder with conversations.
        turns: how many there are.
        told: of these, those in which a fact is told.
        seed: of the order.
    """
    chance = Random(seed)
    rows = [
        json.loads(line)
        for line in (data / "conversations" / "dolly-hhrlhf-small.jsonl").read_text().splitlines()
    ]
    others = [Turn(_asked(row["prompt"]), _short(row["response"])) for row in rows]
    chosen = chance.sample(others, turns - told)
    places = sorted(chance.sample(range(turns * 9 // 10), told))
    for place, fact in zip(places, chance.sample(facts(), told), strict=True):
        chosen.insert(place, Turn(fact.said, "Thank you, noted.", fact))
    return chosen


def _asked(prompt: str) -> str:
    """The question itself, without the template around it."""
    question = prompt.partition("### Instruction:")[2].partition("### Response:")[0].strip()
    return _short(question or prompt)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST].rpartition(' ')[0]} …"


def is_told(fact: Told, reply: str) -> bool:
    """Whether a reply says a fact."""
    return any(form.lower() in reply.lower() for form in fact.answer.split("/"))
