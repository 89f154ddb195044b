"""The form in which texts are compared: one spelling, one case, nothing invisible."""

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
# Cyrillic and Greek letters that look like Latin ones in common fonts. Not the whole table of
# Unicode TS #39: full-width and mathematical letters are NFKC's, and others are left as they are.
_LOOKALIKES = str.maketrans(
    "\u0410\u0412\u0415\u0405\u0406\u0408\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425"
    "\u0430\u0435\u0455\u0456\u0458\u043e\u0440\u0441\u0443\u0445\u04bb\u0501\u051b\u051d\u04cf"
    "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7"
    "\u03b1\u03b9\u03bd\u03bf\u03c1\u03c5\u0131\u0261",
    "ABESIJKMHOPCTYXaesijopcyxhdqwlABEZHIKMNOPTYXaivopuig",
) | str.maketrans("\u2018\u2019\u00b4\u201c\u201d\u201e", "'''\"\"\"")
# Each rewriting with a sign that a text must hold for it: to look first saves most of the time.
_REWRITES = tuple(
    (signs, re.compile(pattern), replacement)
    for signs, pattern, replacement in (
        (("can't", "cannot"), r"\b(?:can't|cannot)\b", "can not"),
        (("won't",), r"\bwon't\b", "will not"),
        (("n't",), r"n't\b", " not"),
        (("'s",), r"\b(it|that|this|there|he|she)'s\b", r"\1 is"),
        (("*", "_", "'"), r"[*_]+|(?<=\w)'(?=\w)", ""),  # Markdown emphasis; apostrophes
        ((",",), r"(?<=\d),(?=\d{3})", ""),  # thousands
        # "non-hearsay" is one word, "third-party" two
        (("-", "\u2010", "\u2011"), r"\b(non|un|in|il|im|ir)[-\u2010\u2011](?=\w)", r"\1"),
        (("-", "\u2010", "\u2011"), r"(?<=\w)[-\u2010\u2011](?=\w)", " "),
    )
)

_PREFIXED = re.compile(r"(?:non|un)([a-z]{4,})|(?:in|il|im|ir)([a-z]{5,})")
_NO_PREFIX = re.compile(r"unless|under\w*|inform\w*|incorporat\w*|imposition|impression")


def legible(text: str) -> str:
    """NFKC, look-alikes and quotes made plain, invisible characters and direction marks dropped."""
    if text.isascii():
        return text
    return _INVISIBLE.sub("", unicodedata.normalize("NFKC", text)).translate(_LOOKALIKES)


@lru_cache(maxsize=1 << 12)  # steps of a group repeat, and so do the facts they are held against
def normalise(text: str) -> str:
    """The form in which texts are compared.

    NFKC, look-alikes made Latin, case folded, invisible characters and emphasis dropped,
    contractions written out; line breaks and punctuation stay, for they bound clauses.
    """
    text = legible(text).casefold().replace("`", "'")
    for signs, pattern, replacement in _REWRITES:
        if any(sign in text for sign in signs):
            text = pattern.sub(replacement, text)
    return text.strip()


@lru_cache(maxsize=1 << 16)
def denied_word(word: str) -> str | None:
    """What a word denies by its prefix ("unfair": "fair"), guessed from the spelling."""
    parts = _PREFIXED.fullmatch(word)
    return (parts[1] or parts[2]) if parts and not _NO_PREFIX.fullmatch(word) else None
