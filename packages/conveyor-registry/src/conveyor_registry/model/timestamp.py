"""Moments written as text, read without a clock or a calendar library."""

import re

_TIMESTAMP = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?)?"
)
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def timestamp_ms(text: str) -> int | None:
    """Milliseconds since 1970 of an RFC 3339 time (UTC where no offset is given), or None.

    The day count is Hinnant's ``days_from_civil``; nothing finer than a millisecond is kept.
    """
    match = _TIMESTAMP.fullmatch(text)
    if match is None:
        return None
    year, month, day = (int(match.group(i)) for i in (1, 2, 3))
    hour, minute, second = (int(match.group(i) or 0) for i in (4, 5, 6))
    if not (1 <= month <= 12 and 1 <= day <= _DAYS[month - 1]):
        return None
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if (month == 2 and day == 29 and not leap) or hour > 23 or minute > 59 or second > 59:
        return None
    offset = match.group(8) or "Z"
    minutes = 0
    if offset not in "Zz":
        minutes = int(offset[1:3]) * 60 + int(offset[4:6])
        minutes = -minutes if offset[0] == "-" else minutes
    years = year - (month <= 2)
    era, of_era = years // 400, years % 400
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    days = era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468
    seconds = days * 86_400 + hour * 3_600 + (minute - minutes) * 60 + second
    return seconds * 1_000 + int((match.group(7) or "0").ljust(3, "0")[:3])
