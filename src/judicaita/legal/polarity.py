"""What a text affirms and what it denies: the normal form of answers, and contradiction in it.

Overlap of words cannot tell "enforceable" from "not enforceable", and embeddings prefer the
negation to a paraphrase. So free text is first asked whether it denies what the gold answer
affirms. Rules over words, not a parser: a negation concerns the next few content words of its
clause, two cancel out, and "unenforceable" is "not enforceable" where both texts share the word.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

WORD = r"\d+(?:\.\d+)*|[^\W\d_]+|\w"
"""Pattern of a word token in a normalised text: a number, letters in a row, or one other sign."""

# Unicode's Default_Ignorable_Code_Point: zero-width and other characters that show nothing.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
_REWRITES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        ("[\u2018\u2019`\u00b4]", "'"),
        (r"\b(?:can't|cannot)\b", "can not"),
        (r"\bwon't\b", "will not"),
        (r"n't\b", " not"),
        (r"\b(it|that|this|there|he|she)'s\b", r"\1 is"),
        (r"[*_]+|(?<=\w)'(?=\w)", ""),  # Markdown emphasis; apostrophes
        (r"(?<=\d),(?=\d{3})", ""),  # thousands
        (r"\b(non|un|in|il|im|ir)[-\u2010\u2011](?=\w)", r"\1"),  # "non-hearsay" is one word,
        (r"(?<=\w)[-\u2010\u2011](?=\w)", " "),  # "third-party" two
    )
)


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


_NEGATORS = _words(
    "not no never neither nor none without fail fails failed lack lacks lacking false untrue"
)
_FUNCTION_WORDS = _words(
    "a an the is are was were be been being do does did has have had will would shall should may "
    "might can could must to of in on at by for with that this it its there any such as or under "
    "against from"
)
_BOUNDS = _words(
    ". , ; : ! ? ( ) because since but although though while whereas if unless and however"
)
_TOKEN = re.compile(rf"{WORD}|[.,;:!?()\n]")
_PREFIXED = re.compile(r"(?:non|un)([a-z]{4,})|(?:in|il|im|ir)([a-z]{5,})")
_NO_PREFIX = re.compile(r"unless|under\w*|inform\w*|incorporat\w*|imposition|impression")
_SCOPE = 4
"""Content words that a negation may concern."""
_SIDE = re.compile(r"\W*(yes|no)(?=\s*(?:[.,;:!\u2014\u2013-]|$))")


@lru_cache(maxsize=1 << 12)  # steps of a group repeat, and so do the facts they are held against
def normalise(text: str) -> str:
    """The form in which texts are compared.

    NFKC, case folded, invisible characters and emphasis dropped, contractions written out; line
    breaks and punctuation stay, for they bound clauses.
    """
    if not text.isascii():
        text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    text = text.casefold()
    for pattern, replacement in _REWRITES:
        text = pattern.sub(replacement, text)
    return text.strip()


@lru_cache(maxsize=1 << 16)
def denied_word(word: str) -> str | None:
    """What a word denies by its prefix ("unfair": "fair"), guessed from the spelling."""
    parts = _PREFIXED.fullmatch(word)
    return (parts[1] or parts[2]) if parts and not _NO_PREFIX.fullmatch(word) else None


def clauses(text: str, vocabulary: frozenset[str]) -> list[list[str]]:
    """Words of a normalised text, clause by clause.

    "unfair" is taken apart into "not", "fair" where ``vocabulary`` holds "fair".
    """
    found: list[list[str]] = [[]]
    for token in _TOKEN.findall(text):
        if token in _BOUNDS or token == "\n":
            found.append([])
        if token[0].isalnum():
            base = denied_word(token)
            found[-1] += ["not", base] if base and base in vocabulary else [token]
    return found


def vocabulary_of(*texts: str) -> frozenset[str]:
    """All words of some normalised texts."""
    return frozenset(word for text in texts for word in re.findall(WORD, text))


def contradict(first: str, second: str) -> bool:
    """True when one normalised text denies what the other affirms, as far as shared words tell.

    That is: one opens with Yes and the other with No; or only one of them denies any word that both
    use; or a word that a negation aims at is not denied and affirmed alike in both.
    """
    sides = {side[1] for text in (first, second) if (side := _SIDE.match(text))}
    if len(sides) == 2:
        return True
    vocabulary = vocabulary_of(first, second)
    one, one_targets = _polarity(clauses(first, vocabulary))
    two, two_targets = _polarity(clauses(second, vocabulary))
    shared = one.keys() & two.keys()
    if any(False in one[word] for word in shared) != any(False in two[word] for word in shared):
        return True
    return any(one[word] != two[word] for word in shared & (one_targets | two_targets))


def _polarity(parts: list[list[str]]) -> tuple[dict[str, set[bool]], set[str]]:
    """Whether each content word is affirmed (True) or denied, and the words negations aim at."""
    affirmed: dict[str, set[bool]] = {}
    targets: set[str] = set()
    for clause in parts:
        positive, scope, aims = True, 0, False
        for word, following in zip(clause, [*clause[1:], ""], strict=False):
            if word in _NEGATORS and following != "only":
                positive = not positive if scope else False
                scope, aims = _SCOPE, True
            elif word not in _FUNCTION_WORDS:
                stem = _stem(word)
                affirmed.setdefault(stem, set()).add(positive or not scope)
                if aims:
                    targets.add(stem)
                scope, aims = max(scope - 1, 0), False
    return affirmed, targets


@lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    """The word without a common ending, so that "binds" is "binding"."""
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending)
    return word
