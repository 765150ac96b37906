"""What the options of results say: those that are not the task's defaults, and those that differ."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from videogen.errors import InputError
from videogen.review.found import Found
from videogen.tasks.config import tiny_name
from videogen.tasks.hints import hint, option_named
from videogen.tasks.options import OPTIONS, defaults
from videogen.tasks.table import VARIANTS

SAID_ELSEWHERE = ("task_type", "model_id", "revision", "seed", "prompt", "roll_prompts")


class Difference(NamedTuple):
    """An option and its values; None where one was not recorded."""

    name: str
    one: object
    other: object


@dataclass(frozen=True, slots=True)
class _RecordedModel:
    """A model by its name, and the config of a tiny one."""

    name: str
    tiny: str | None = None


def differences(one: Found, other: Found) -> list[Difference]:
    """Return the options in which two results differ."""
    names = dict.fromkeys([*one.request, *other.request])
    return _differing({name: (one.request.get(name), other.request.get(name)) for name in names})


def changed_options(found: Found) -> list[Difference]:
    """Return the options of a result that are not its task's defaults: (name, default, value)."""
    usual = _usual(found)
    named = {name: value for name, value in found.request.items() if name not in SAID_ELSEWHERE}
    return _differing({name: (usual.get(name), value) for name, value in named.items()})


def shown(value: object) -> str:
    """Return a value of an option about as it is typed."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return ",".join(map(shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def axis(flag: str, given: str, results: Sequence[Found]) -> str:
    """Return the name of the option that results are arranged by.

    Raises:
        InputError: no option, one that is not recorded, or one that none of the results has.
    """
    name = option_named(given)
    varying = [other for other in OPTIONS if len(values_of(other, results)) > 1]
    fix = f"these results differ in {', '.join(varying)}" if varying else "these results do not differ"
    if name is None:
        raise InputError(flag, given, "is not an option", hint(given) or fix)
    if not (OPTIONS[name].recorded and not OPTIONS[name].about_run):
        raise InputError(flag, given, "is not recorded with results", fix)
    if not values_of(name, results):
        raise InputError(flag, given, "none of these results has it", fix)
    return name


def values_of(name: str, results: Sequence[Found]) -> list[str]:
    """Return the values that results have for an option, in order: numbers by size, texts by letter."""
    values = {shown(found.request[name]) for found in results if name in found.request}
    return sorted(values, key=_by_size)


def _by_size(text: str) -> tuple[bool, float, str]:
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _differing(values: Mapping[str, tuple[object, object]]) -> list[Difference]:
    """Return the options whose two values differ; what is empty, off or not there is the same."""
    empty: tuple[object, ...] = (None, False, [], "")
    differing = [Difference(name, one, other) for name, (one, other) in values.items() if one != other]
    return [each for each in differing if not (each.one in empty and each.other in empty)]


def _usual(found: Found) -> dict[str, object]:
    """Return the defaults of a result's task and model, as records have them."""
    rows = VARIANTS.get(str(found.request.get("task_type")), ())
    name, model = str(found.request.get("model_id", "")), found.record.get("model")
    layout = model.get("layout") if isinstance(model, Mapping) else None
    tiny = tiny_name(name)
    named = (row for row in rows if row.model(name) or tiny in row.tiny)
    row = next(named, next((row for row in rows if row.layouts[0] == layout), next(iter(rows), None)))
    values = defaults()
    if row is not None:
        values |= row.defaults(_RecordedModel(name, row.tiny.get(tiny or "")))
    recorded = {
        name: OPTIONS[name].record(value)
        for name, value in values.items()
        if value is not None and OPTIONS[name].recorded
    }
    return json.loads(json.dumps(recorded, default=str))
