"""Durations and sizes with their units, and the strict spellings of numbers and flags.

A manifest says ``30s`` and ``256KiB``; the models hold integers of milliseconds and bytes. The
loader hands every scalar over as the text that the author wrote (nothing is guessed from its look,
so ``NO`` stays a country and ``12:30`` a time), and these types are the explicit conversions. An
integer given from Python is taken as milliseconds or bytes.

Serialising goes the other way, to the largest unit that divides the amount, so that the canonical
bytes of a document are themselves a document that can be applied.
"""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

_DURATION_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_BYTE_UNITS = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_AMOUNT = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,6}))?([A-Za-z]*)")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_DECIMAL = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")


def parse_duration_ms(text: str) -> int:
    """Milliseconds of a duration such as ``100ms``, ``1.5s``, ``10m``, ``24h`` or ``7d``.

    Raises:
        ValueError: without a unit, with an unknown one, or finer than a millisecond.
    """
    return _parse_amount(text, _DURATION_UNITS, "a duration", "30s", "ms, s, m, h, d")


def parse_bytes(text: str) -> int:
    """Bytes of a size such as ``512B``, ``256KiB``, ``16MiB`` or ``1GiB``.

    Raises:
        ValueError: without a unit, with an unknown one, or not a whole number of bytes.
    """
    return _parse_amount(text, _BYTE_UNITS, "a size", "256KiB", "B, KiB, MiB, GiB")


def format_duration(milliseconds: int) -> str:
    """The shortest exact spelling: 90000 is ``90s``, 86400000 is ``1d``."""
    return _format_amount(milliseconds, _DURATION_UNITS, "0s")


def format_bytes(count: int) -> str:
    """The shortest exact spelling: 262144 is ``256KiB``."""
    return _format_amount(count, _BYTE_UNITS, "0B")


def _parse_amount(text: str, units: dict[str, int], what: str, example: str, known: str) -> int:
    match = _AMOUNT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not {what}; write it like {example} (units: {known})")
    whole, fraction, unit = match.groups()
    factor = units.get(unit)
    if factor is None:
        missing = "has no unit" if not unit else f"has the unknown unit {unit!r}"
        raise ValueError(f"{text!r} {missing}; write it like {example} (units: {known})")
    amount = int(whole) * factor
    if fraction:
        scaled = int(fraction) * factor
        divisor = 10 ** len(fraction)
        if scaled % divisor:
            raise ValueError(f"{text!r} is not a whole number of {next(iter(units))}")
        amount += scaled // divisor
    return amount


def _format_amount(amount: int, units: dict[str, int], zero: str) -> str:
    if amount == 0:
        return zero
    for unit, factor in reversed(units.items()):
        if amount % factor == 0:
            return f"{amount // factor}{unit}"
    raise ValueError(f"{amount} is not a whole number")


def _duration(value: Any) -> Any:
    return _converted(value, parse_duration_ms, "duration")


def _size(value: Any) -> Any:
    return _converted(value, parse_bytes, "size")


def _converted(value: Any, parse: Any, what: str) -> Any:
    if isinstance(value, str):
        try:
            return parse(value)
        except ValueError as error:
            raise PydanticCustomError(what, "{reason}", {"reason": str(error)}) from None
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise PydanticCustomError(what, "a {what} with its unit is needed", {"what": what})


def _integer(value: Any) -> Any:
    if isinstance(value, str):
        if _INTEGER.fullmatch(value) is None:
            raise PydanticCustomError(
                "integer", "{text} is not a whole number", {"text": f"{value!r}"}
            )
        return int(value)
    if isinstance(value, bool):
        raise PydanticCustomError("integer", "a whole number is needed")
    return value


def _decimal(value: Any) -> Any:
    if isinstance(value, str):
        if _DECIMAL.fullmatch(value) is None:
            raise PydanticCustomError("number", "{text} is not a number", {"text": f"{value!r}"})
        return float(value)
    if isinstance(value, bool):
        raise PydanticCustomError("number", "a number is needed")
    return value


def _flag(value: Any) -> Any:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise PydanticCustomError("flag", "write true or false, not {text}", {"text": f"{value!r}"})


DurationMs = Annotated[
    int,
    BeforeValidator(_duration),
    PlainSerializer(format_duration, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"}),
]
"""Milliseconds; in a document, text with a unit."""

ByteCount = Annotated[
    int,
    BeforeValidator(_size),
    PlainSerializer(format_bytes, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB)$"}),
]
"""Bytes; in a document, text with a unit."""

Count = Annotated[int, BeforeValidator(_integer)]
"""A whole number; in a document, decimal digits and nothing else."""

Ratio = Annotated[float, BeforeValidator(_decimal)]
"""A number with an optional decimal point."""

Flag = Annotated[bool, BeforeValidator(_flag)]
"""``true`` or ``false``; the other spellings of YAML 1.1 (``yes``, ``on``, …) are refused."""
