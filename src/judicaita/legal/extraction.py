"""Answers that copy something out of the question: a term, a list of names, the name of a case."""

from __future__ import annotations

import re

from judicaita.legal.labels import HEDGE, Verdict
from judicaita.legal.lexicon import stem, word_set
from judicaita.legal.normal_form import WORD, normalise

_WORD = re.compile(WORD)
_QUOTED = re.compile(r"[\"\u201c\u201d]([^\"\u201c\u201d\n]{1,200})[\"\u201c\u201d]")
_LEAD = re.compile(
    r"\W*(?:(?:so|therefore|thus|hence)\b\W*)?"
    r"(?:(?:the|my)\s+)?(?:(?:final|defined|correct|only|company|individual|named|relevant)\s+)*"
    r"(?:answers?|terms?|phrases?|words?|names?|plaintiffs?|defendants?|citations?|cases?)\b"
    r"(?:\s+(?:being|that is|named|here|in this case|in the complaint))*\s*(?:defined\s*)?"
    r"(?:\b(?:is|are|was|were|includes?)\b\s*:?|[:=])\s*|\W*it is\s+",
    re.IGNORECASE,
)
_LATE = re.compile(
    r"(?<=[\s,.;:(>])(?:the\s+)?answers?\s*(?:\b(?:is|are)\b\s*:?|[:=])\s*", re.IGNORECASE
)
_SUFFIX = re.compile(
    r",\s*(?=(?:inc|incorporated|l\.?l\.?c|ltd|limited|corp|co|l\.?p|l\.?l\.?p|plc|n\.?a|s\.?a|"
    r"jr|sr|ii|iii|m\.?d|ph\.?d|esq)\b)",
    re.IGNORECASE,
)
_END = re.compile(r"[.;\n(]|\s[\u2014\u2013-]\s|,?\s+(?:because|since|as|which|meaning)\b")
_REASONS = re.compile(r"\n\s*\n|,?\s+(?:because|since)\b", re.IGNORECASE)
_LISTED = re.compile(
    r"['\"\u2018\u201c]((?:[^'\"\u2019\u201d\n]|(?<=\w)'(?=\w))+)['\"\u2019\u201d]"
    r"(?=\s*(?:[,\]]|and\b|$))"
)
_BETWEEN = re.compile(r"[,;\n]|\s+and\s+(?=[A-Z\"'*])|\s&\s(?=\w+\s)")
_BULLET = re.compile(r"^\W*(?:\d{1,2}[.)]\s|[-*\u2022]\s|and\s+)?")
_ARTICLES = frozenset(("a", "an", "the"))
_CASE = re.compile(r"\s(?:v|vs|versus)\.?\s", re.IGNORECASE)


def _key(text: str) -> tuple[str, ...]:
    """Words, without articles, as stems."""
    return tuple(stem(w) for w in _WORD.findall(normalise(text)) if w not in _ARTICLES)


def _body(answer: str) -> str:
    """The answer without "The term is", or what follows its last "the answer is"."""
    late = [mark.end() for mark in _LATE.finditer(answer)]
    lead = _LEAD.match(answer)
    start = late[-1] if late else lead.end() if lead else 0
    return answer[start:].strip()


def term_verdict(answer: str, reference: str) -> Verdict:
    """Whether the answer is one of the gold terms, which commas part, and no other term.

    In a sentence ("The court defines “land”.") the one quoted string is the answer.
    """
    golds = {_key(part) for part in (reference, *reference.split(","))} - {()}
    text = normalise(answer)
    if HEDGE.search(text):
        return "hedged"
    quoted = {_key(part.strip(" .,;")) for part in _QUOTED.findall(answer)} - {()}
    body = _body(answer)
    end = _END.search(body)
    first = body[: end.start()] if end else body
    told = {_key(part) for part in (first.split(",") if "," in first else [first])} - {()}
    if _key(first) in golds or (told and told <= golds):
        return "match" if not quoted or quoted & golds or _key(first) in golds else "mismatch"
    if len(quoted) == 1:
        return "match" if quoted <= golds and not re.search(r"\bnot\b|\bor\b", text) else "mismatch"
    return "hedged" if re.search(r"\bor\b", text) else "mismatch"


def _names(text: str) -> list[frozenset[str]]:
    """The names of a list: its words each, legal forms and initials' full stops aside."""
    text = _REASONS.split(_SUFFIX.sub(" ", _body(text)))[0]
    parts = _LISTED.findall(text) if text.startswith("[") else _BETWEEN.split(text)
    found = []
    for part in parts:
        words = _WORD.findall(
            normalise(re.sub(r"^\W*(?:\d{1,2}[.)]\s|[-*\u2022]\s|and\s+)?", "", part))
        )
        if key := frozenset(word for word in words if word not in _ARTICLES):
            found.append(key)
    return found


def names_score(answer: str, reference: str) -> float:
    """F1 over whole names, one against one; each counts once on each side; in [0, 1].

    A name matches that holds all words of the gold one, or all but its legal form and initials.
    """
    golds, told = list(dict.fromkeys(_names(reference))), list(dict.fromkeys(_names(answer)))
    if not golds:
        raise ValueError(f"the reference {reference!r} lists no name")
    total, hits, left = len(golds) + len(told), 0, list(told)
    for gold in golds:
        match = next((name for name in left if _core(name) == _core(gold)), None)
        if match is not None:
            left.remove(match)
            hits += 1
    return 2 * hits / total


_FORMS = word_set("inc incorporated llc ltd limited corp corporation co company lp llp plc")


def _core(name: frozenset[str]) -> frozenset[str]:
    core = frozenset(word for word in name if len(word) > 1 and word not in _FORMS)
    return core or name


def name_verdict(answer: str, reference: str) -> Verdict:
    """Whether the answer names the gold case, and no second one.

    Containment, as LegalBench scores citations, so a reporter cite may follow.
    """
    gold, text = _plain(reference), _plain(answer)
    if HEDGE.search(normalise(answer)):
        return "hedged"
    if f" {gold} " not in f" {text} ":
        return "mismatch"
    denied = re.search(rf"\b(?:not|never)\s+(?:\w+\s+){{0,2}}{re.escape(gold)}", text)
    if denied:
        return "contradicted"
    rest = f" {text} ".replace(f" {gold} ", "  ")
    return "hedged" if _CASE.search(rest) else "match"


def _plain(text: str) -> str:
    words = " ".join(_WORD.findall(normalise(text)))
    return re.sub(r"\b(?:vs|versus)\b", "v", words)
