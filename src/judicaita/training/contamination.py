"""Does training data hold what a run is measured on? Instance texts are compared, never templates.

Generated samples overlap when their fact patterns are equal, whatever their words. Of others the
instance text counts: a LegalBench row's own cells, without the prompt around them and its
demonstrations; else the prompt. Each kind of overlap is weaker than the one before:

    facts       equal fact patterns of generated samples
    exact       equal texts but for white space
    normalised  equal letters and digits: NFKC, lower case, neither punctuation nor white space
    near        Jaccard similarity of the sets of word pairs >= `THRESHOLD`
    quoted      every word pair of the shorter text stands in the longer one

Candidates for ``near`` come from MinHash (Broder 1997, "On the resemblance and containment of
documents") in bands (Leskovec et al., "Mining of Massive Datasets", §3.4); each is then verified on
the sets themselves.

Word pairs that all but a few texts of a task share (instructions, demonstrations) are its template
and count in neither text. Texts with few word pairs of their own are compared as exact and
normalised alone, and so are languages that put no blanks between words.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from judicaita.errors import DataError
from judicaita.legal.tasks import family_of
from judicaita.legal.tasks.family import reading_facts
from judicaita.types import Sample

Kind = Literal["facts", "exact", "normalised", "near", "quoted"]

KINDS: tuple[Kind, ...] = ("facts", "exact", "normalised", "near", "quoted")
"""From the surest to the weakest; a pair has the first that holds."""

THRESHOLD = 0.5
"""Least Jaccard similarity of a near copy. On LegalBench's train rows, texts of 50 to 80 words kept
0.54 or more when 5 % of their words were changed, while 4 of 345,912 pairs of rows of different
tasks reach 0.5 without having the same text. Of single words 16 did; of triples, swaps left 0.43.
"""

MIN_PAIRS = 19
"""Fewest word pairs of its own (those of 20 words) that ``near`` and ``quoted`` need: shorter
questions of one kind are alike without being copies."""

TEMPLATE_TEXTS, TEMPLATE_SHARE = 10, 0.95
"""A word pair in at least so many different texts of a task, and this share of them, is the
template's. Copies with 5 % of their words changed share 90 % of their pairs, and stay copies."""

BANDS, BAND_ROWS = 42, 3
"""Of MinHash: similarity s becomes a candidate with probability 1 - (1 - s³)⁴², which is 0.996 at
`THRESHOLD` and 0.99996 at 0.6."""

SEED = 0
"""Of MinHash's permutations: equal data give equal results."""

PAIRS_SHOWN = 20
"""Pairs that a manifest or a report lists; its counts are of all."""

_METADATA = {
    *("index", "document_name", "slice", "case id", "Docket No.", "year"),
    *("answer_type", "metric", "category", "split", "caveat"),
}
"""LegalBench's columns that number, date or sort rows, and what is known of a row's task: a prompt
may hold their values by chance."""

_DECIMAL_POINT = re.compile(r"(?<=\d)\.(?=\d)")

_Pairs = NDArray[np.uint64]
"""Hashes of a text's word pairs, each once, sorted."""


@dataclass(frozen=True)
class Overlap:
    """A held-out sample and the training sample that comes closest to it."""

    train_id: str
    held_out_id: str
    kind: Kind
    similarity: float
    """Jaccard's for ``near``; for all others 1."""


@dataclass(frozen=True)
class Contamination:
    """What a comparison of training with held-out samples found. Ids are those of `Sample.id`."""

    train: int
    """Different training ids that were compared; 0 where nothing was."""
    held_out: int
    """Different held-out ids that were compared."""
    pairs: tuple[Overlap, ...] = ()
    """One for each held-out id that overlaps: its surest kind, of these the highest similarity, of
    these the first training id. In that order, too."""
    train_ids: tuple[str, ...] = ()
    """Every training id that overlaps with any held-out sample, sorted: without them none does."""

    @property
    def is_checked(self) -> bool:
        """False for `NOT_CHECKED`."""
        return self.train > 0 and self.held_out > 0

    @property
    def by_kind(self) -> dict[Kind, int]:
        """Held-out ids that overlap, by the kind of their pair; kinds without any are absent."""
        counts = Counter(pair.kind for pair in self.pairs)
        return {kind: counts[kind] for kind in KINDS if counts[kind]}

    def as_fields(self) -> dict[str, Any]:
        """For a manifest or a report, as JSON-able values."""
        if not self.is_checked:
            return {"status": "not checked"}
        return {
            "status": "overlap" if self.pairs else "no overlap",
            "train": self.train,
            "held_out": self.held_out,
            "train_overlapping": len(self.train_ids),
            "held_out_overlapping": len(self.pairs),
            "by_kind": self.by_kind,
            "pairs": [asdict(pair) for pair in self.pairs[:PAIRS_SHOWN]],
        }

    def sentence(self) -> str:
        """For a person."""
        if not self.is_checked:
            return "Whether training data overlap with evaluation data was not checked."
        if not self.pairs:
            return (
                f"None of {self.held_out} held-out samples overlaps with {self.train} to train on."
            )
        first = self.pairs[0]
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.by_kind.items())
        return (
            f"The training data hold {len(self.pairs)} of {self.held_out} held-out samples "
            f"({kinds}), such as {first.held_out_id} as training sample {first.train_id}."
        )


NOT_CHECKED = Contamination(0, 0)
"""No evaluation split was at hand."""


def refuse_overlap(contamination: Contamination, allowed: bool) -> None:
    """`DataError` where held-out samples stand in the training data, unless that is ``allowed``."""
    if contamination.pairs and not allowed:
        raise DataError(
            f"{contamination.sentence().removesuffix('.')}: take them out of one side, or set "
            "allow_contamination=true to train and measure on them all the same."
        )


def find_overlap(train: Iterable[Sample], held_out: Iterable[Sample]) -> Contamination:
    """Compare every training sample with every held-out one; the order of neither matters.

    `NOT_CHECKED` when either side is empty. `DataError` for facts that claim to be a generated
    family's and are not.
    """
    ours, theirs = [_Row.of(sample) for sample in train], [_Row.of(sample) for sample in held_out]
    if not ours or not theirs:
        return NOT_CHECKED
    found = _Found()
    _find_equal(found, "facts", ours, theirs)
    _find_equal(found, "exact", ours, theirs)
    _find_equal(found, "normalised", ours, theirs)
    our_texts, their_texts = _own_texts(ours, theirs)
    _find_near(found, our_texts, their_texts)
    _find_quoted(found, our_texts, their_texts)
    return Contamination(
        train=len({row.id for row in ours}),
        held_out=len({row.id for row in theirs}),
        pairs=found.pairs(),
        train_ids=tuple(sorted(found.train_ids)),
    )


def instance_text(sample: Sample) -> str:
    """What is particular to a sample: a LegalBench row's own cells, else what the user says."""
    prompt = sample.prompt
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    if "in_demonstrations" in sample.facts or sample.source.startswith("legalbench:"):
        shown = _bare("\n".join(turn["content"] for turn in turns))
        cells = [
            cell
            for name, cell in sorted(sample.facts.items())
            if name not in _METADATA and isinstance(cell, str) and _bare(cell)
        ]
        if cells:
            return "\n".join([cell for cell in cells if _bare(cell) in shown] or cells)
    return "\n".join(turn["content"] for turn in turns if turn["role"] == "user")


# ── rows and what was found of them ──────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Row:
    """What is compared of a sample."""

    id: str
    task: str
    pattern: str | None
    """Of a generated sample."""
    text: str

    @classmethod
    def of(cls, sample: Sample) -> _Row:
        family, pattern = family_of(sample.facts), None
        if family is not None:
            with reading_facts(family.name):
                pattern = family.pattern(sample.facts)
        return cls(sample.id, sample.task, pattern, instance_text(sample))

    @cached_property
    def words(self) -> str:
        return _words(self.text)

    def key(self, kind: Kind) -> str | None:
        """Equal for rows that overlap so; empty where there is nothing to compare."""
        if kind == "facts":
            return self.pattern
        if kind == "exact":
            return " ".join(self.text.split())
        return self.words.replace(" ", "")


class _Found:
    """Collects overlaps: whatever order they come in, the same ones are kept."""

    def __init__(self) -> None:
        self.train_ids: set[str] = set()
        self._closest: dict[str, tuple[int, float, str]] = {}

    def add(
        self, kind: Kind, train: Sequence[str], held_out: Iterable[str], similarity: float = 1.0
    ) -> None:
        """Each of some training ids overlaps with each of some held-out ids."""
        if not train:
            return
        place = (KINDS.index(kind), -similarity, min(train))
        self.train_ids.update(train)
        for held_out_id in held_out:
            self._closest[held_out_id] = min(place, self._closest.get(held_out_id, place))

    def pairs(self) -> tuple[Overlap, ...]:
        ranked = sorted((*place, held_out) for held_out, place in self._closest.items())
        return tuple(
            Overlap(train, held_out, KINDS[kind], -negative)
            for kind, negative, train, held_out in ranked
        )


def _find_equal(
    found: _Found,
    kind: Kind,
    train: Iterable[_Row],
    held_out: Iterable[_Row],
) -> None:
    ids = _ids_by((row.key(kind), row.id) for row in train)
    for key, held_out_ids in _ids_by((row.key(kind), row.id) for row in held_out).items():
        found.add(kind, ids.get(key, ()), held_out_ids)


def _ids_by(rows: Iterable[tuple[str | None, str]]) -> dict[str, list[str]]:
    """Ids by key; rows without a key are left out."""
    grouped: dict[str, list[str]] = defaultdict(list)
    for key, row_id in rows:
        if key:
            grouped[key].append(row_id)
    return grouped


# ── letters and words ────────────────────────────────────────────────────────────────────────────


class _Signs(dict[int, str]):
    """What `str.translate` makes of a character: letters, digits and their marks stay, the rest
    parts words."""

    def __missing__(self, code: int) -> str:
        is_kept = unicodedata.category(chr(code))[0] in "LNM"
        return self.setdefault(code, chr(code) if is_kept else " ")


_SIGNS = _Signs()


def _words(text: str) -> str:
    """Lower-case words with one blank between them. A decimal point is a word, since 1.50 and 150
    are two amounts."""
    text = unicodedata.normalize("NFKC", _DECIMAL_POINT.sub(" point ", text)).casefold()
    return " ".join(text.translate(_SIGNS).split())


def _bare(text: str) -> str:
    return _words(text).replace(" ", "")


@lru_cache(maxsize=2**18)
def _hash(word: str) -> int:
    """64 bits, the same in every process."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


def _word_pairs(words: str) -> _Pairs:
    hashes = np.array([_hash(word) for word in words.split()], dtype=np.uint64)
    # An odd factor, 2⁶⁴ over the golden ratio (Knuth, TAOCP 3, §6.4), tells "a b" from "b a".
    return np.unique(hashes[:-1] * np.uint64(0x9E3779B97F4A7C15) + hashes[1:])


# ── templates, near copies and quotations ────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _OwnText:
    """The word pairs of a text that are not its task's template, and the rows that have it."""

    pairs: _Pairs
    ids: list[str]


def _own_texts(*sides: Iterable[_Row]) -> list[list[_OwnText]]:
    """Of each side, the different texts that have enough word pairs besides their task's template.

    What is a template shows in the texts of all sides together.
    """
    ids: list[dict[tuple[str, str], list[str]]] = []
    pairs: dict[str, dict[str, _Pairs]] = defaultdict(dict)
    for side in sides:
        ids.append(defaultdict(list))
        for row in side:
            if row.pattern is None:
                ids[-1][row.task, row.words].append(row.id)
                if row.words not in pairs[row.task]:
                    pairs[row.task][row.words] = _word_pairs(row.words)
    for texts in pairs.values():
        template = _template(list(texts.values()))
        for words, own in texts.items():
            texts[words] = np.setdiff1d(own, template, assume_unique=True)
    return [
        [
            _OwnText(pairs[task][words], owners)
            for (task, words), owners in side_ids.items()
            if len(pairs[task][words]) >= MIN_PAIRS
        ]
        for side_ids in ids
    ]


def _template(texts: Sequence[_Pairs]) -> _Pairs:
    """The word pairs that all but a few of a task's different texts share."""
    if len(texts) < TEMPLATE_TEXTS:
        return np.array([], dtype=np.uint64)
    pairs, counts = np.unique(np.concatenate(texts), return_counts=True)
    return pairs[counts >= TEMPLATE_SHARE * len(texts)]


def _find_near(found: _Found, train: Sequence[_OwnText], held_out: Sequence[_OwnText]) -> None:
    from datasketch import MinHash, MinHashLSH  # loads scipy

    blank = MinHash(num_perm=BANDS * BAND_ROWS, seed=SEED, hashfunc=int)

    def sketch(text: _OwnText) -> Any:
        filled = blank.copy()
        filled.update_batch((text.pairs >> np.uint64(32)).tolist())  # MinHash takes 32 bits
        return filled

    index = MinHashLSH(num_perm=BANDS * BAND_ROWS, params=(BANDS, BAND_ROWS))
    with index.insertion_session() as session:
        for number, text in enumerate(train):
            session.insert(number, sketch(text))
    for text in held_out:
        for number in index.query(sketch(text)):
            similarity = _jaccard(train[number].pairs, text.pairs)
            if similarity >= THRESHOLD:
                found.add("near", train[number].ids, text.ids, similarity)


def _jaccard(one: _Pairs, other: _Pairs) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _find_quoted(found: _Found, train: Sequence[_OwnText], held_out: Sequence[_OwnText]) -> None:
    for ours, theirs in _quotations(train, held_out):
        found.add("quoted", ours.ids, theirs.ids)
    for theirs, ours in _quotations(held_out, train):
        found.add("quoted", ours.ids, theirs.ids)


def _quotations(
    longer: Sequence[_OwnText], shorter: Sequence[_OwnText]
) -> Iterator[tuple[_OwnText, _OwnText]]:
    """(long, short) wherever the long text holds every word pair of the short one.

    Whatever holds all of them holds the one that fewest texts hold: only those are looked at.
    """
    if not longer or not shorter:
        return
    owners = np.repeat(np.arange(len(longer)), [len(text.pairs) for text in longer])
    hashes = np.concatenate([text.pairs for text in longer])
    order = np.argsort(hashes, kind="stable")
    owners, hashes = owners[order], hashes[order]
    for text in shorter:
        first = np.searchsorted(hashes, text.pairs, side="left")
        after = np.searchsorted(hashes, text.pairs, side="right")
        rarest = int(np.argmin(after - first))
        for number in owners[first[rarest] : after[rarest]]:
            if np.isin(text.pairs, longer[number].pairs, assume_unique=True).all():
                yield longer[number], text
