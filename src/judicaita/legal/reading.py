"""A text read once: what its words affirm and deny, and all else that two texts may differ in.

Rules over words, not a parser: a negation concerns the next few content words of its clause, two
cancel out, and "unenforceable" is "not enforceable" where both texts share the word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from judicaita.legal.amounts import NUMBERS
from judicaita.legal.lexicon import (
    AFTER,
    ASIDES,
    AUXILIARIES,
    BEFORE,
    BOUNDS,
    CONCEPTS,
    CONDITIONS,
    DENIALS,
    FAMILIES,
    FUNCTION_WORDS,
    GRADED,
    NEGATORS,
    join_phrases,
    stem,
)
from judicaita.legal.normal_form import WORD, denied_word

_TOKEN = re.compile(rf"{WORD}|[.,;:!?()\n$%]")
_SCOPE = 4
"""Content words that a negation may concern."""
_MEASURES = {"over": "above", "under": "below"}
"""What these mean before a number; elsewhere courts have jurisdiction over, and suits lie under."""
_PREDICATES = frozenset(
    ("required", "mandatory", "compulsory", "permitted", "optional", "discretionary", "allowed")
)
"""Modal words that may stand alone ("restitution is mandatory")."""
_MEASURED = frozenset(map(stem, ("exceed", "more", "less", "fewer")))
_DENYING = ("no ", "not ", "may not ", "do not ", "does not ", "did not ")


@lru_cache(maxsize=1 << 12)
def _tokens(text: str) -> tuple[list[str], frozenset[str], frozenset[str]]:
    """Words, signs and line breaks; the same, each once; and words that may deny by a prefix."""
    tokens = _TOKEN.findall(text)
    vocabulary = frozenset(tokens)
    prefixed = frozenset(word for word in vocabulary if word[0] in "uni" and denied_word(word))
    return tokens, vocabulary, prefixed


def _apart(first: str, second: str) -> frozenset[str]:
    """Words such as "unfair" in either text, where either says "fair"."""
    _, one, one_prefixed = _tokens(first)
    _, two, two_prefixed = _tokens(second)
    return frozenset(
        word
        for word in one_prefixed | two_prefixed
        if (base := denied_word(word)) in one or base in two
    )


def words_of_pair(first: str, second: str) -> tuple[list[str], list[str]]:
    """The words of two normalised texts; "unfair" is "not", "fair" where either says "fair"."""
    apart = _apart(first, second)
    one, two = (
        [token for token in _tokens(text)[0] if token[0].isalnum()] for text in (first, second)
    )
    if apart:
        one, two = (
            [p for w in words for p in (("not", denied_word(w) or w) if w in apart else (w,))]
            for words in (one, two)
        )
    return one, two


@dataclass(frozen=True, slots=True)
class Reading:
    """A normalised text, read once. Words are stems but for those of `tokens` and `vocabulary`."""

    tokens: tuple[str, ...]
    """Words, signs and line breaks, known phrases as one."""
    vocabulary: frozenset[str]
    """The words as they stand in the text."""
    affirmed: dict[str, set[bool]]
    """Content words: whether they are affirmed (True), denied or both."""
    targets: frozenset[str]
    """Content words that follow a negation at once."""
    loose: frozenset[str]
    """Words before "no" in a clause: "breached no duty" denies them, and their object alone."""
    concepts: dict[str, set[bool]]
    """What `CONCEPTS` names, and what stands before what: affirmed, denied or both."""
    alternatives: dict[int, set[str]]
    """Family of alternatives: those affirmed."""
    graded: dict[str, set[str]]
    """ "quantifier", "modal" and "modal pay": those that occur, here in "must pay"."""
    conditions: dict[str, set[str]]
    """Content words inside a condition: of which kinds it is."""


@lru_cache(maxsize=1 << 12)
def read(text: str, taken_apart: frozenset[str] = frozenset()) -> Reading:
    """Read a normalised text; the words ``taken_apart`` lose their denying prefix."""
    plain, vocabulary, _ = _tokens(text)
    tokens = join_phrases(plain)
    reader = _Reader(taken_apart)
    reader.take(_resolve_denials(tokens) if any(d in text for d in DENIALS) else tokens)
    return Reading(
        tuple(tokens),
        vocabulary,
        reader.affirmed,
        frozenset(reader.targets),
        frozenset(reader.loose),
        reader.concepts,
        reader.alternatives,
        reader.graded,
        reader.conditions,
    )


def _resolve_denials(tokens: list[str]) -> list[str]:
    """ "It is not true that x is not y" without both negations."""
    result: list[str] = []
    pending = False
    for token in tokens:
        if pending and token in NEGATORS:
            result.remove("\0")
            pending = False
        elif token in DENIALS:
            result.append("\0")
            pending = True
        else:
            pending = pending and token not in ".;!?\n"
            result.append(token)
    return ["not" if token == "\0" else token for token in result]


class _Kinds(dict[str, tuple[str, str]]):
    """Token → how the reader takes it, and its stem; filled as texts bring new words."""

    def __missing__(self, token: str) -> tuple[str, str]:
        if token in BOUNDS or token in CONDITIONS:
            kind = "bound"
        elif token in NEGATORS:
            kind = "negator"
        elif not token[0].isalnum():
            kind = "sign"
        elif token in BEFORE or token in AFTER:
            kind = "time"
        elif token in GRADED or token in _MEASURES:
            kind = "graded"
        elif token in FUNCTION_WORDS:
            kind = "sign"
        else:
            word = stem(token)
            kind = "named" if word in CONCEPTS or word in FAMILIES else "content"
        if len(self) > 1 << 16:  # a model may invent words without end
            self.clear()
        self[token] = kind, stem(token)
        return self[token]


_KINDS = _Kinds()


class _Reader:
    """One pass over the tokens of a text."""

    def __init__(self, taken_apart: frozenset[str]) -> None:
        self.taken_apart = taken_apart
        self.affirmed: dict[str, set[bool]] = {}
        self.targets: set[str] = set()
        self.loose: set[str] = set()
        self.concepts: dict[str, set[bool]] = {}
        self.alternatives: dict[int, set[str]] = {}
        self.graded: dict[str, set[str]] = {}
        self.conditions: dict[str, set[str]] = {}
        self.condition: str | None = None
        self.positive, self.scope, self.aims = True, 0, False
        self.negator, self.modal = "", ""
        self.clause: list[str] = []

    def take(self, tokens: list[str]) -> None:
        """Read all tokens. What a word affirms is written out here, for most tokens are content."""
        affirmed, apart = self.affirmed, self.taken_apart
        previous, time = "", None
        for place, token in enumerate(tokens):
            kind, word = _KINDS[token]
            if kind == "content" or kind == "named":
                if token in apart:
                    word = self._take_apart(token)
                here = self.positive or not self.scope
                sides = affirmed.get(word)
                if sides is None:
                    affirmed[word] = {here}
                else:
                    sides.add(here)
                if kind == "named":
                    self._name(word, here)
                if self.modal:  # what must be, or may be
                    self.graded.setdefault(f"modal {word}", set()).add(self.modal)
                    self.modal = ""
                if time is not None:
                    self.concepts.setdefault(f"before {word}", set()).add(time == here)
                    time = None
                if self.aims:
                    self.targets.add(word)
                    self.aims = False
                if self.condition:
                    self.conditions.setdefault(word, set()).add(self.condition)
                if self.scope:
                    self.scope -= 1
                self.clause.append(word)
            elif kind == "bound":
                self._bound(token)
            elif kind == "negator":
                self._negate(token, previous, tokens[place + 1 : place + 2])
            elif kind == "time":
                time = token in BEFORE
            elif kind == "graded":
                self._grade(token, previous, "".join(tokens[place + 1 : place + 2]))
            if self.negator in ASIDES and token in AUXILIARIES:
                self.positive, self.scope, self.negator = True, 0, ""
            previous = token

    def _bound(self, token: str) -> None:
        self.positive, self.scope, self.aims = True, 0, False
        self.clause, self.modal = [], ""
        if token != "and":
            self.condition = CONDITIONS.get(token)
        if token == "unless":
            self.positive, self.scope, self.aims = False, 3 * _SCOPE, True

    def _negate(self, token: str, previous: str, following: list[str]) -> None:
        if following == ["only"]:
            return
        # "Without notice" ends with its noun: neither does it reverse a negation, nor is it
        # reversed by a later one.
        reverses = self.scope and self.negator not in ASIDES and token != "without"
        reverses = reverses or (token == "without" and previous == "not")
        self.positive = not self.positive if reverses else False
        self.scope, self.aims, self.negator = max(self.scope, _SCOPE), True, token
        if token == "no":
            self.loose.update(self.clause)

    def _take_apart(self, token: str) -> str:
        self.positive = not self.positive if self.scope else False
        self.scope, self.aims = max(self.scope, _SCOPE), True
        return stem(denied_word(token) or token)

    def _name(self, word: str, positive: bool) -> None:
        if concept := CONCEPTS.get(word):
            for part in word.split():
                if part in _MEASURED and word.startswith(_DENYING):  # "not exceed", "no more than"
                    self.affirmed.setdefault(stem(part), set()).add(not positive)
            self.concepts.setdefault(concept[0], set()).add(concept[1] == positive)
        if positive:
            for family, member in FAMILIES.get(word, ()):
                self.alternatives.setdefault(family, set()).add(member)

    def _grade(self, token: str, before: str, after: str) -> None:
        if token in _MEASURES:
            if after == "$" or after.isdigit() or after in NUMBERS:
                self._name(stem(_MEASURES[token]), self.positive or not self.scope)
            return
        denied = (self.scope and not self.positive) or "not" in (before, after)
        is_month = token == "may" and after.isdigit()
        if not denied and not is_month and not (token == "any" and self.condition):
            kind, member = GRADED[token]
            if kind == "modal" and (after == "to" or token not in _PREDICATES):
                self.modal = member
            else:
                self.graded.setdefault(kind, set()).add(member)
        if token not in FUNCTION_WORDS:
            self._plain(token)

    def _plain(self, token: str) -> None:
        word, here = stem(token), self.positive or not self.scope
        self.affirmed.setdefault(word, set()).add(here)
        self._name(word, here)
        if self.aims:
            self.targets.add(word)
            self.aims = False
        if self.condition:
            self.conditions.setdefault(word, set()).add(self.condition)
        self.scope = max(self.scope - 1, 0)
        self.clause.append(word)


def read_pair(first: str, second: str) -> tuple[Reading, Reading]:
    """Two normalised texts; "unfair" is taken apart in both where either of them says "fair"."""
    apart = _apart(first, second)
    return read(first, apart), read(second, apart)
