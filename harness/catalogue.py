"""Faults and checks by name: make one, list them, describe their settings, and publish the schema of a scenario.

The checks are loaded where they are needed only: they load numpy, which `pytest` need not do whenever it starts.
"""

from __future__ import annotations

import inspect
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydantic import BaseModel, ValidationError

from harness.mistakes import first_mistake, similar, unknown
from harness.protocols import Fault
from harness.reading import ReadingError, brief, json_value, shown
from harness.scenario import Scenario, ScenarioError

__all__ = ["About", "Faults", "Setting", "checks", "faults", "make", "scenario_schema", "settings"]

Faults: TypeAlias = Mapping[str, Callable[..., Fault]]
"""The registry of faults: a name -> what makes the fault from its settings."""

DEFAULT_SEED = 1
"""As of a scenario that names no seed."""


@dataclass(frozen=True)
class Setting:
    """One setting of a fault or a check."""

    name: str
    kind: str
    """Its type and range in words, such as ``number from 0 to 100``."""
    allowed: tuple[Any, ...]
    """All values that it can have, where they can be listed."""
    required: bool
    default: Any
    meaning: str


@dataclass(frozen=True)
class About:
    """The documentation of a fault or a check."""

    name: str
    summary: str
    """The first sentence of the text."""
    text: str
    settings: tuple[Setting, ...]


def make(  # noqa: PLR0913, PLR0917 - two of them say where a mistake is
    name: str,
    values: Mapping[str, Any],
    known: Faults,
    seed: int = DEFAULT_SEED,
    label: str = "",
    where: str = "",
) -> Fault:
    """The fault of that name with those settings. Raises ScenarioError, whose sentence begins with ``where``.

    Unless ``values`` has a seed, a fault that draws gets one from the ``seed`` of the run and the ``label`` of the
    step, which is the fault's name by default.
    """
    if name not in known:
        raise ScenarioError(f"{where}{_unknown('fault', name, known)}")
    model = _model(known[name])
    values = dict(values)
    if "seed" in model.model_fields:
        values.setdefault("seed", zlib.crc32(f"{seed} {label or name}".encode()))
    try:
        return known[name](**values)
    except ValidationError as error:
        raise ScenarioError(f"{where}{name}: {first_mistake(error, model)}") from error


def settings(name: str, words: Iterable[str], known: Faults) -> dict[str, Any]:
    """The settings of a fault from ``KEY=VALUE`` words, for ``make``. Raises ScenarioError.

    A list is separated by commas, so one value is a list of one: ``one=web-5``. All else is as in JSON.
    """
    where = brief(name)
    fields = _fields(_model(known[name])) if name in known else {}
    found = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ScenarioError(f"{where}: invalid setting {shown(word)}: expected KEY=VALUE, for example node=lb-1")
        found[key] = _value(text, fields.get(key, {}))
    return found


def faults(known: Faults, name: str | None = None) -> list[About]:
    """All faults, or the one with that name, or those of a family. Raises ScenarioError. Pure."""
    chosen = [each for each in sorted(known) if name is None or each == name or each.startswith(f"{name}.")]
    if name is not None and not chosen:
        raise ScenarioError(_unknown("fault or family", name, known))
    return [_about(each, known[each].__doc__, _model(known[each])) for each in chosen]


def checks(name: str | None = None) -> list[About]:
    """All checks, or the one with that name. Raises ScenarioError. Pure."""
    from harness.checks import CHECKS

    if name is not None and name not in CHECKS:
        raise ScenarioError(unknown("check", name, CHECKS))
    chosen = sorted(CHECKS) if name is None else [name]
    return [_about(each, CHECKS[each].ask.__doc__, CHECKS[each].settings) for each in chosen]


def scenario_schema(known: Faults) -> dict[str, Any]:
    """The JSON Schema of a scenario file, with the settings of each fault and each check."""
    from harness.checks import CHECKS

    schema = Scenario.model_json_schema()
    definitions = schema["$defs"]
    for name in known:
        definitions[f"fault.{name}"] = _schema(_model(known[name]))
    for name, check in CHECKS.items():
        definitions[f"check.{name}"] = _schema(check.settings)
    definitions["FaultSettings"] = {
        "description": "The settings of each fault",
        "allOf": [_settings_of(name, _model(known[name])) for name in sorted(known)],
    }
    for table in ("StepTable", "DrawTable"):
        described = definitions[table]["properties"]["inject"].get("description", "")
        definitions[table]["properties"]["inject"] = {"enum": sorted(known), "description": described}
        definitions[table]["allOf"] = [{"$ref": "#/$defs/FaultSettings"}]
    schema["properties"]["checks"] = {
        "type": "object",
        "description": "The settings of each check",
        "properties": {name: {"$ref": f"#/$defs/check.{name}"} for name in sorted(CHECKS)},
        "additionalProperties": False,
    }
    return schema


def _settings_of(name: str, model: type[BaseModel]) -> dict[str, Any]:
    wanted: dict[str, Any] = {"properties": {"with": {"$ref": f"#/$defs/fault.{name}"}}}
    if any(field.is_required() for field in model.model_fields.values()):
        wanted["required"] = ["with"]
    return {"if": {"properties": {"inject": {"const": name}}, "required": ["inject"]}, "then": wanted}


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    """A model's own schema, without the docstring that `monkeywrench faults` prints in full."""
    schema = model.model_json_schema()
    return {**schema, "description": _summary(schema.get("description", ""))}


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for an unknown fault, with the nearest one, or its family, or else all families."""
    name, names = brief(name), sorted(known)
    families = sorted({each.partition(".")[0] for each in names})
    if family := [each for each in names if each.partition(".")[0] == name.partition(".")[0]]:
        return unknown(kind, name, family)
    if meant := similar(name, [*names, *families]):
        return f"unknown {kind} {name!r}; did you mean {meant!r}?"
    return f"unknown {kind} {name!r}; families: {', '.join(families)}"


def _model(make: Callable[..., Any]) -> type[BaseModel]:
    """The settings of what makes a fault; none if it is not a model."""
    return make if isinstance(make, type) and issubclass(make, BaseModel) else BaseModel


def _fields(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    """Each setting -> its JSON Schema, without the null of an optional one."""
    if not model.model_fields:
        return {}
    return {name: _without_null(field) for name, field in model.model_json_schema().get("properties", {}).items()}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    kinds = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return {**schema, **kinds[0]} if len(kinds) == 1 else schema


def _about(name: str, documented: str | None, model: type[BaseModel]) -> About:
    text = _unwrapped(inspect.cleandoc(documented or ""))
    required = {key for key, field in model.model_fields.items() if field.is_required()}
    return About(
        name,
        _summary(text),
        text,
        tuple(
            Setting(
                key,
                _kind(field),
                tuple(_choices(field)),
                key in required,
                field.get("default"),
                field.get("description", ""),
            )
            for key, field in _fields(model).items()
        ),
    )


def _unwrapped(text: str) -> str:
    """A docstring with each paragraph and each entry of a list on one line: whoever shows it wraps it."""
    plain = text.replace("``", "`")
    return re.sub(r"(?<!\n)\n(?![\n-])\s*", " ", plain)


def _summary(text: str) -> str:
    """The first sentence: up to a full stop, a paragraph's end or the text's."""
    first = text.partition("\n\n")[0].replace("\n", " ")
    return re.split(r"(?<=\.)\s", first, maxsplit=1)[0]


def _choices(schema: Mapping[str, Any]) -> list[Any]:
    found = schema.get("items", schema)
    return list(found.get("enum", [found["const"]] if "const" in found else []))


KINDS = {"string": "string", "number": "number", "integer": "whole number", "boolean": "true or false"}
PLURALS = {"string": "strings", "number": "numbers", "integer": "whole numbers"}


LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def _kind(schema: Mapping[str, Any]) -> str:
    """A type and its range in words.

    >>> _kind({"type": "number", "exclusiveMinimum": 0, "maximum": 1})
    'number above 0, at most 1'
    """
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return f"one of: {', '.join(map(str, choices))}"
    kind = schema.get("type", "")
    if kind == "array":
        inner = schema.get("items", {})
        entries = _choices(inner)
        some = "non-empty list" if schema.get("minItems") else "list"
        return f"{some} of: {', '.join(map(str, entries))}" if entries else f"{some} of {_plural(inner)}"
    if kind == "object":
        return f"table of NAME = {_kind(schema.get('additionalProperties') or {})}"
    if schema.get("format") == "regex":
        return "regular expression"
    if "pattern" in schema:
        return f"string matching {schema['pattern']}"
    return f"{KINDS.get(kind, kind)}{_range(schema)}"


def _plural(schema: Mapping[str, Any]) -> str:
    return "regular expressions" if schema.get("format") == "regex" else PLURALS.get(schema.get("type", ""), "values")


def _range(schema: Mapping[str, Any]) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    limits = [f"{words} {schema[key]}" for key, words in LIMITS.items() if key in schema]
    return f" {', '.join(limits)}" if limits else ""


def _value(text: str, schema: Mapping[str, Any]) -> Any:
    """A setting's value as typed on a command line."""
    if schema.get("type") == "array" and not text.startswith("["):
        return [_value(each, schema.get("items", {})) for each in text.split(",") if each]
    if schema.get("type") == "string":
        return text
    try:
        return json_value(text)
    except ReadingError:
        return text
