"""Text of any origin as Markdown that shows it and is nothing else: no heading, link or HTML."""

from __future__ import annotations

import re

# Markup in the middle of a line: escapes, code, emphasis, links, HTML, entities, strikeouts.
_MARKUP = re.compile(r"([\\`*_\[<&~])")
# GitHub's flavour links these wherever they stand, backslashes or not; in a code span nothing does.
_LINKED = re.compile(r"(\S*(?:://|www\.|@)\S*)", re.IGNORECASE)
# Would move a terminal's cursor, or turn the reading order round.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def inline(text: str) -> str:
    """For the midst of a line; not for its start, nor for a table."""
    parts = _LINKED.split(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", " ".join(text.split())))
    return "".join(
        code(part) if index % 2 else _MARKUP.sub(r"\\\1", part) for index, part in enumerate(parts)
    )


def cell(text: str) -> str:
    """For a cell of a table."""
    return inline(text).replace("|", r"\|")


def code(text: str) -> str:
    """A code span; its marks are longer than any run of them inside."""
    fence = "`" * (_longest_run(text) + 1)
    padding = " " if "`" in text else ""
    return f"{fence}{padding}{text}{padding}{fence}"


def block(text: str) -> str:
    """A fenced block; its fence is longer than any run of backticks inside."""
    fence = "`" * max(3, _longest_run(text) + 1)
    lines = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", "\n".join(text.splitlines()))
    return f"{fence}text\n{lines}\n{fence}"


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
