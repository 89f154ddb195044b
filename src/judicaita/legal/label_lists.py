"""Answers that name any number of labels: "Battery and trespass.", a bulleted list, "none".

Such an answer is read whole: filler, then labels with commas, semicolons, "and" or line breaks
between them, and nothing else. So a label that is denied, doubted or argued about is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from judicaita.legal.polarity import normalise

_FILLER = r"""
    (?: (?: so | therefore | thus | hence | accordingly | finally | overall
          | in (?: conclusion | sum | short) ) \b [\s,:]{0,4} )?
    (?:
        (?: (?: the | my | our | his | her | their | these | all ) \s+ )?
        (?: (?: final | correct | right | possible ) \s+ )?
        (?: answer | tort | issue | label | claim | category | categorie | cause[ ]of[ ]action
          | causes[ ]of[ ]action ) s?
        (?: \s+ (?: raised | committed | involved | present | here | that [ ] apply ) ){0,2}
        \s* (?: (?: is | are | include | includes ) \b \s* :? | [:=] ) \s*
      | (?: i | he | she | they | it | this | there ) \s+
        (?: (?: has | have ) \s+ )?
        (?: is | are | find | committed | commits | raised | raises ) \b \s* :? \s*
    )?
    (?: (?: both | all [ ] of ) \s+ )?
"""
_MARK = r"(?: [-\u2022\u00b7] | \d{1,2} [.)] | \( (?: \d{1,2} | [a-z] ) \) ) \s*"
_BETWEEN = r"(?: \s* [,;] \s* (?: and \s+ )? | \s+ and \s+ | \s* & \s* | \n )"


def read_labels(text: str, labels: Sequence[str]) -> frozenset[str] | None:
    """The labels, normalised, that a text names and commits to; None where it does anything else.

    >>> sorted(read_labels("The torts are trespass and battery.", ["Battery", "Trespass", "none"]))
    ['battery', 'trespass']
    """
    item, answer = _patterns(tuple(sorted(map(normalise, labels), key=len, reverse=True)))
    # Runs of blanks become one, or the optional blanks of the pattern would try each split of them.
    words = re.sub(r"[^\S\n]+", " ", normalise(text))
    found = answer.fullmatch(re.sub(r" ?\n[ \n]*", "\n", words))
    if found is None:
        return None
    return frozenset(named[1] for named in item.finditer(found["list"]))


@lru_cache(maxsize=64)
def _patterns(labels: tuple[str, ...]) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """One label of a list, and a whole answer with its group ``list``; longest labels first."""
    either = "|".join(map(re.escape, labels))
    item = rf"""["'(]? (?: (?:an?|the) \s+ )? (?<!\w)({either})(?!\w) [)"']?"""
    unnamed = item.replace("(" + either + ")", "(?:" + either + ")")
    answer = rf"""
        \s* {_FILLER} ["']?
        (?P<list> (?: {_MARK} )? {unnamed} (?: [.]? {_BETWEEN} (?: {_MARK} )? {unnamed} )* )
        \s* [.!]? ["']? \s*
    """
    return re.compile(item, re.VERBOSE), re.compile(answer, re.VERBOSE)
