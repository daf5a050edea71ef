"""What is wrong in a file or on a command line, in one sentence: pydantic's errors in plain words.

Scenario files, topology files and the settings of faults and checks share this wording:

    steps[1]: unknown key 'hold'; did you mean 'hold_s'?
    load.users: must be at most 10000 (got 20000)

A place counts list entries from 0, as TOML libraries do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, TypeAlias, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness.reading import brief

__all__ = ["first_mistake", "mistakes", "similar", "suggestion", "unknown"]

Place: TypeAlias = tuple[str | int, ...]
"""Where in the file: ``("steps", 2, "within_s")``."""

NEAR = 0.7
"""How similar two words must be for one to be suggested instead of the other (difflib's ratio).

Higher than the ratio of lb-1 and web-1, which are two nodes and no typing error.
"""


def first_mistake(error: ValidationError, model: type[BaseModel], under: Place = ()) -> str:
    """The most useful of pydantic's errors as ``place: what is wrong``, and how many more there are.

    ``model`` is what was validated; ``under`` is its place in the file. Pure.
    """
    first, *others = mistakes(error, model, under)
    return f"{first} (and {len(others)} more)" if others else first


def mistakes(error: ValidationError, model: type[BaseModel], under: Place = ()) -> list[str]:
    """Each of pydantic's errors as ``place: what is wrong``. Pure.

    Unknown keys come first: a misspelt key often makes another one missing.
    """
    ordered = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    return [_sentence(each, model, under) for each in ordered]


def unknown(kind: str, word: str, known: Iterable[str]) -> str:
    """The sentence for a word that is not one of the known ones. Pure.

    >>> unknown("key", "nod", ["node", "share"])
    "unknown key 'nod'; did you mean 'node'?"
    >>> unknown("key", "xyz", ["node", "share"])
    "unknown key 'xyz'; accepted: node, share"
    """
    return f"unknown {kind} {brief(word)!r}; {suggestion(brief(word), known)}"


def suggestion(word: str, known: Iterable[str], known_are: str = "accepted") -> str:
    """``did you mean 'node'?`` if a known word is similar, else all known words after ``known_are``. Pure."""
    words = sorted(known)
    meant = similar(word, words)
    return f"did you mean {meant!r}?" if meant else f"{known_are}: {', '.join(words) or 'none'}"


def similar(word: str, known: Iterable[str]) -> str:
    """The known word that is most similar to a word; empty if none is similar enough. Pure."""
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1, cutoff=NEAR)), "")


def _sentence(error: ErrorDetails, model: type[BaseModel], under: Place) -> str:
    place = (*under, *error["loc"])
    match error["type"]:
        case "extra_forbidden":
            table = _model_at(model, error["loc"][:-1])
            return _at(place[:-1], unknown("key", str(place[-1]), _keys(table)))
        case "missing":
            return _at(place[:-1], f"missing key {str(place[-1])!r}")
        case "value_error":
            return _at(place, str(error["ctx"]["error"]))
        case "literal_error":
            return _at(place, f"{_must(error)} (got {_shown(error['input'])}{_hint(error)})")
    return _at(place, f"{_must(error)} (got {_shown(error['input'])})")


def _at(place: Place, wrong: str) -> str:
    return f"{_place(place)}: {wrong}" if place else wrong


def _place(place: Place) -> str:
    """``("steps", 2, "within_s")`` -> ``steps[2].within_s``."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


SENTENCES: Mapping[str, str] = {
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be {expected}",
    "string_type": "must be a string",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "model_type": "must be a table",
    "dict_type": "must be a table",
    "mapping_type": "must be a table",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "ip_v4_address": "must be an IPv4 address",
    "ip_v4_network": "must be an IPv4 network",
}
"""pydantic's types of error -> what would be right. All others keep pydantic's own words."""


def _must(error: ErrorDetails) -> str:
    kind, limits = error["type"], error.get("ctx", {})
    if kind == "too_short":
        return f"must have at least {_count(limits['min_length'], 'entry', 'entries')}"
    if kind == "too_long":
        return f"must have at most {_count(limits['max_length'], 'entry', 'entries')}"
    if kind in SENTENCES:
        return SENTENCES[kind].format(**limits)
    message = error["msg"].replace("Input should be", "must be")
    return f"{message[:1].lower()}{message[1:]}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _hint(error: ErrorDetails) -> str:
    """For a misspelt choice."""
    words = [word for word in error["ctx"]["expected"].split("'") if word.strip() not in {"", ",", "or"}]
    meant = similar(_shown(error["input"]).strip("'"), words)
    return f"; did you mean {meant!r}?" if meant else ""


def _shown(value: Any) -> str:
    """A value as its file writes it, more or less: ``true`` and not ``True``. A long one loses its middle."""
    if isinstance(value, bool):
        return str(value).lower()
    try:
        return brief(repr(value))
    except RecursionError:
        return "a value that is nested too deep"
    except ValueError:  # Python refuses to write a number with more than 4,300 digits
        return "a number with too many digits"


def _keys(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_at(model: type[BaseModel], place: Iterable[str | int]) -> type[BaseModel]:
    """The model of the table at a place, found by walking the annotations of the models around it."""
    here: list[Any] = [model]
    for part in place:
        here = [inner for each in here for inner in _entries(each, part)] or here
    return next((each for each in here if _is_model(each)), model)


def _entries(annotation: Any, part: str | int) -> Iterator[Any]:
    """What a table or a list with that annotation holds at a key or an index."""
    if _is_model(annotation):
        for name, field in annotation.model_fields.items():
            if part == (field.alias or name):
                yield from _alternatives(field.annotation)
        return
    arguments = get_args(annotation)
    if arguments:  # of a mapping the values, of a list the entries
        yield from _alternatives(arguments[-1] if isinstance(part, str) else arguments[0])


def _alternatives(annotation: Any) -> Iterator[Any]:
    """The annotation itself, or each member of a union, without what ``Annotated`` adds."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from _alternatives(get_args(annotation)[0])
    elif origin in {Union, UnionType}:
        for member in get_args(annotation):
            yield from _alternatives(member)
    else:
        yield annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)
