"""What AgentDojo's tools bring, as JSON-like data: records with fields that contracts name.

Most tools give models or lists of them. The travel agency's give texts and dictionaries of names;
their parts, which the tools themselves put together, become fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

# Their results are dictionaries from a name to a value; other dictionaries are records.
_BY_NAME = re.compile(
    r"get_(hotels|restaurants|car_rental)_(prices|address)"
    r"|get_(rating_reviews|price|cuisine_type|dietary_restrictions|contact_information)_for_.*"
    r"|check_restaurant_opening_hours|get_car_(types_available|fuel_options|price_per_day)"
)
_LISTED = re.compile(r"get_all_\w+_in_city")
_RATED = re.compile(r"Rating: (?P<rating>\d+(?:\.\d+)?)\nReviews: (?P<reviews>.*)", re.DOTALL)


def as_data(tool: str, result: object) -> object:
    """A result as JSON-like data.

    Args:
        tool: which brought it.
        result: a pydantic model, a list, a dictionary, a scalar or None.
    """
    plain = _plain(result)
    if isinstance(plain, str) and _LISTED.fullmatch(tool):
        names = plain.partition(": ")[2].splitlines()
        return [{"name": name} for name in names]
    if isinstance(plain, Mapping) and _BY_NAME.fullmatch(tool):
        return [_named(name, value) for name, value in plain.items()]
    return plain


def _named(name: str, value: object) -> dict[str, object]:
    rated = _RATED.fullmatch(value) if isinstance(value, str) else None
    if rated is None:
        return {"name": name, "value": value}
    return {"name": name, "rating": float(rated["rating"]), "reviews": rated["reviews"]}


def _plain(value: object) -> object:
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        return dump(mode="json")
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(one) for one in value]
    return value
