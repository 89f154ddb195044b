"""Words that turn a legal conclusion into another one: negators, antonyms, alternatives, phrases.

Data for `polarity` and `contrasts`. Every list is short, closed and of common legal English; a word
that none names is compared by its spelling alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal


def word_set(listed: str) -> frozenset[str]:
    """The words of a text that blanks separate."""
    return frozenset(listed.split())


NEGATORS = word_set(
    "not no never neither nor none without fail fails failed lack lacks lacking false untrue "
    "exclude excludes except excluding outside"
) | {"other than", "apart from", "save for", "far from", "all but"}
ASIDES = word_set("without except excluding outside") | {
    *("other than", "apart from", "save for"),
}
"""Negators that end with their noun: "without notice" denies no verb that follows."""
AUXILIARIES = word_set(
    "is are was were be been being do does did has have had will would shall should may might can "
    "could must"
)
FUNCTION_WORDS = word_set(
    "a an the is are was were be been being do does did has have had will would shall should may "
    "might can could must to of in on at by for with that this it its there any such as or under "
    "fall falls fell falling come comes came "
    "against from than so thus therefore hence here then also both either each all every"
)
BOUNDS = word_set(
    ". , ; : ! ? ( ) because since but although though while whereas if unless and however"
) | {"\n"}

CONDITIONS: dict[str, Literal["if", "only if", "even if"]] = {
    **dict.fromkeys(("if", "unless", "provided that", "so long as", "as long as"), "if"),
    **dict.fromkeys(("only if", "only when", "only where"), "only if"),
    **dict.fromkeys(
        (
            *("even if", "even when", "even though", "even where", "whether or not"),
            *("regardless of", "regardless whether", "irrespective of", "no matter"),
            *("notwithstanding", "despite"),
        ),
        "even if",
    ),
}
"""What opens a condition ("unless" also denies it), the only one, or one that does not matter."""

OPPOSITES = (
    ("grant sustain", "deny denied denies reject overrule refuse refusal"),
    ("affirm uphold upheld", "reverse reversal vacate overturn"),
    ("prevail succeed win wins", "lose loses lost"),
    ("valid validity", "void voided null"),
    ("permit allow", "bar barred preclude prohibit forbid forbidden forbids"),
    ("include inclusion cover", "exclusion excluded"),
    ("guilty convict", "innocent acquit acquitted acquittal"),
    ("liable", "immune immunity"),
    ("timely", "late untimely time~barred"),
    ("survive proceed", "dismiss dismissal"),
    ("same identical", "different"),
    ("increase", "decrease reduce"),
    ("accept acceptance", "decline"),
    (
        "exceed exceeds more greater above at~least or~more no~less~than not~less~than "
        "no~fewer~than minimum~of larger",
        "less fewer below at~most no~more~than not~more~than up~to or~less or~fewer "
        "maximum~of not~exceed not~exceeding may~not~exceed does~not~exceed did~not~exceed "
        "do~not~exceed smaller",
    ),
    ("begin begins start", "end ends expire expired expiration"),
    ("present exist", "absent absence"),
    ("complete completed", "incomplete"),
)
"""Words that affirm something, and words that deny the same."""

BEFORE = word_set("before") | {"prior to", "no later than", "not later than", "earlier than"}
AFTER = word_set("after") | {"subsequent to", "later than"}

ALTERNATIVES = (
    "express implied",
    "federal state",
    "civil criminal",
    "public private",
    "felony misdemeanor",
    "intentional negligent reckless",
    "subjective objective",
    "compensatory punitive",
    "preponderance convincing beyond~a~reasonable~doubt",
    "strict~scrutiny intermediate~scrutiny rational~basis",
    "de~novo abuse~of~discretion clear~error clearly~erroneous",
    "general~jurisdiction specific~jurisdiction",
    "independent~contractor employee",
    "with~prejudice without~prejudice",
    "personal~property real~property",
    "long~term short~term",
    "exclusive nonexclusive",
    "buyer seller",
    "plaintiff defendant",
    "landlord tenant",
    "lessor lessee",
    "employer employee",
    "licensor licensee",
    "franchisor franchisee",
    "mortgagor mortgagee",
    "assignor assignee",
    "offeror offeree",
    "insurer insured",
    "debtor creditor",
    "trustee beneficiary",
    "principal agent",
    "majority minority",
    "prosecution defense",
    "mother father",
    "husband wife",
    "parent subsidiary",
    "donor donee",
    "bailor bailee",
    "appellant appellee",
    "vendor purchaser",
)
"""Each line: one of these excludes the others. Roles among them are also parties."""

ROLES = word_set(
    "buyer seller plaintiff defendant landlord tenant lessor lessee employer employee licensor "
    "licensee franchisor franchisee mortgagor mortgagee assignor assignee offeror offeree insurer "
    "insured debtor creditor trustee beneficiary principal agent majority minority mother father "
    "husband wife parent subsidiary donor donee bailor bailee appellant appellee vendor purchaser "
    "guarantor contractor subcontractor owner lender borrower bank board shareholder director "
    "company customer carrier shipper physician patient attorney client grantor grantee "
    "manufacturer retailer distributor partner partnership executor heir controller processor"
)

QUANTIFIERS = {
    "all": "all every each entire entirely whole wholly fully completely unanimous unanimously "
    "always both in~every~case in~full any",
    "some": "some partly partially several sometimes in~part part~of half only~certain one~of~its "
    "some~of in~some~cases only~one not~all not~every not~both not~each",
    "most": "most~of majority~of a~majority",
}
MODALS = {
    "must": "must shall required mandatory obliged obligated compulsory has~to have~to "
    "had~to duty~to obligation~to bound~to",
    "may": "may can permitted optional discretionary allowed discretion~to option~to free~to",
    "neither": "may~only can~only",
}
HEDGES = word_set("might maybe perhaps possibly arguably conceivably")
DENIALS = ("not the case that", "not true that", "false that", "untrue that")


def _spaced(listed: str) -> list[str]:
    return [word.replace("~", " ") for word in listed.split()]


IRREGULAR = {
    form: forms.split()[0]
    for forms in (
        *("owe owes owed owing", "sue sues sued suing", "pay pays paid paying"),
        *("give gives gave given giving", "bear bears bore borne bearing", "hold holds held"),
        *("meet meets met meeting", "buy buys bought buying", "sell sells sold selling"),
        *("take takes took taken taking", "make makes made making", "keep keeps kept keeping"),
        *("bring brings brought", "show shows showed shown", "use uses used using"),
        *("lie lies lay lain", "bind binds bound binding", "find finds found", "send sends sent"),
        *("tell tells told", "win wins won winning", "lose loses lost losing", "file files filed"),
    )
    for form in forms.split()
}
"""Forms of a word that share no stem of four letters."""


@lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The word without a common ending, so that "binds" is "binding"."""
    if word in IRREGULAR:
        return IRREGULAR[word]
    for ending in ("ing", "ed", "es", "s", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word.removesuffix(ending)
    return word


CONCEPTS: dict[str, tuple[str, bool]] = {
    stem(word): (f"+{affirming.split()[0]}", affirms)
    for affirming, denying in OPPOSITES
    for listed, affirms in ((affirming, True), (denying, False))
    for word in _spaced(listed)
}
"""Stem → what it is about, and whether it affirms that."""

FAMILIES: dict[str, tuple[tuple[int, str], ...]] = {}
"""Stem → (family, member) for all the families of alternatives in which it stands."""
for _number, _listed in enumerate(ALTERNATIVES):
    for _word in _spaced(_listed):
        FAMILIES[stem(_word)] = (*FAMILIES.get(stem(_word), ()), (_number, stem(_word)))

GRADED: dict[str, tuple[str, str]] = {
    word: (kind, member)
    for kind, members in (("quantifier", QUANTIFIERS), ("modal", MODALS))
    for member, listed in members.items()
    for word in _spaced(listed)
}
"""Word → ("quantifier", "all") and the like."""

_PHRASES: dict[str, list[tuple[str, ...]]] = {}
for _word in (
    *(NEGATORS | BEFORE | AFTER),
    *(*CONDITIONS, *DENIALS, *GRADED),
    *(phrase for line in ALTERNATIVES for phrase in _spaced(line)),
    *(phrase for pair in OPPOSITES for line in pair for phrase in _spaced(line)),
):
    if " " in _word:
        _PHRASES.setdefault(_word.split()[0], []).append(tuple(_word.split()))
for _listing in _PHRASES.values():
    _listing.sort(key=len, reverse=True)


def join_phrases(tokens: list[str]) -> list[str]:
    """The tokens with each known phrase as one ("at", "least": "at least"), longest first."""
    joined: list[str] = []
    skip = 0
    for place, token in enumerate(tokens):
        if skip:
            skip -= 1
            continue
        phrases = _PHRASES.get(token)
        if phrases is not None:
            for phrase in phrases:
                if tuple(tokens[place : place + len(phrase)]) == phrase:
                    token, skip = " ".join(phrase), len(phrase) - 1
                    break
        joined.append(token)
    return joined
