"""diffusers' step caches by name: what ``--cache`` takes, and where MagCache's ratios are kept.

Nothing here imports torch: the choice is made while arguments are checked.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

from videogen.errors import nearest
from videogen.files import parse_json, read_text, write_text
from videogen.tasks.option_types import Reject, real, whole

CALIBRATE = "calibrate"


class Ratios(TypedDict):
    """What MagCache measures: steps of a loop; per transformer and branch one ratio for every call of it."""

    steps: int
    transformers: list[dict[str, list[float]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One cache.

    Args:
        default: diffusers' own threshold (for TaylorSeer: interval).
        parse: a threshold as text to a number.
        calibrated: whether it needs ratios that are measured on the model.
        in_blocks: whether it works inside the blocks, which then cannot be compiled whole.
        local: whether it decides by the tokens themselves, of which every rank would see others.
        kept: token-sized tensors it keeps per guidance branch; ``per_output``: and per output of a layer.
    """

    default: float
    parse: Callable[[str], float]
    calibrated: bool = False
    in_blocks: bool = False
    local: bool = False
    kept: int = 0
    per_output: int = 0


_share, _interval = real(0, 1, above=True, example=0.1), whole(2, 100)
KINDS: dict[str, Kind] = {
    "first_block": Kind(default=0.05, parse=_share, local=True, kept=3),
    "magcache": Kind(default=0.06, parse=_share, calibrated=True, kept=2),
    "taylorseer": Kind(default=5, parse=_interval, in_blocks=True, per_output=2),
    "taylorseer_lite": Kind(default=5, parse=_interval, kept=1),
}


OTHER_NAMES = {"fbcache": "nearest first_block", "teacache": "use --teacache"}


def step_cache(value: str) -> str:
    """Parse NAME[:threshold] to the same with the threshold that counts, or magcache:calibrate."""
    name, colon, given = value.partition(":")
    name = name.replace("-", "_")
    if (kind := KINDS.get(name)) is None:
        close = nearest(name, KINDS)
        fix = f"nearest {close}" if close else f"for example {next(iter(KINDS))}"
        raise Reject(f"must be NAME[:threshold] with one of {', '.join(KINDS)}", OTHER_NAMES.get(name, fix))
    if kind.calibrated and given == CALIBRATE:
        return f"{name}:{CALIBRATE}"
    try:
        number = kind.parse(given) if colon else kind.default
    except Reject as verdict:
        what = "interval" if kind.default > 1 else "threshold"
        also = f", or '{CALIBRATE}'" if kind.calibrated else ""
        raise Reject(f"the {what} of {name} {verdict.allowed}{also}", verdict.fix) from None
    return f"{name}:{number:g}"


def read_cache(value: str) -> tuple[str, float | None]:
    """Return (name, threshold) of what ``step_cache`` returned; no threshold where it is to be calibrated."""
    name, _, given = value.partition(":")
    return name, None if given == CALIBRATE else float(given)


def ratios_name(weights: str, schedule: Mapping[str, object]) -> str:
    """Return the file name of the ratios of some weights for a schedule."""
    digest = hashlib.sha256(json.dumps(schedule, sort_keys=True, default=str).encode()).hexdigest()
    return f"{weights}_{digest[:16]}.json"


def read_ratios(file: Path) -> Ratios | None:
    """Read what ``write_ratios`` kept; None where there is nothing usable."""
    try:
        found = parse_json(read_text(file))["ratios"]
    except (ValueError, KeyError, TypeError):
        return None
    known = isinstance(found, dict) and set(Ratios.__annotations__) <= set(found)
    return cast("Ratios", found) if known else None


def write_ratios(file: Path, ratios: Ratios, schedule: Mapping[str, object]) -> None:
    """Write ratios, with the schedule they belong to, atomically."""
    write_text(file, json.dumps({"ratios": ratios, "schedule": schedule}, indent=1, default=str))
