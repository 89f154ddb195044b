"""Finding things by name: exact names, shell patterns, and a helpful refusal."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

from judicaita.errors import DataError

_LISTED_IN_FULL = 12
"""Up to so many known names are all listed in an error; of more, only the nearest."""


def match_names(patterns: Sequence[str], known: Sequence[str], kind: str) -> list[str]:
    """The known names that the patterns (``*``, ``?``, ``[…]``) match, each once, in order.

    ``kind`` says what the names are, for the `DataError` a pattern without a match raises.
    """
    matched: dict[str, None] = {}
    for pattern in patterns:
        # An exact name wins: some hold characters that mean something in a pattern.
        found = [pattern] if pattern in known else fnmatch.filter(known, pattern)
        if not found:
            raise unknown_name(pattern, known, kind)
        matched |= dict.fromkeys(found)
    return list(matched)


def unknown_name(name: str, known: Sequence[str], kind: str) -> DataError:
    """An error that says which names come nearest, and all of them where they are few."""
    many = len(known) > _LISTED_IN_FULL
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.0 if many else 0.5)
    if many:
        return DataError(f"{name!r} is no {kind}. The nearest are {', '.join(nearest)}.")
    hint = f" The nearest is {nearest[0]}." if nearest else ""
    return DataError(f"{name!r} is no {kind}.{hint} There are: {', '.join(known) or 'none'}.")
