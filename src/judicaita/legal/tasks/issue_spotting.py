"""Issue spotting: which torts does a story raise? Several labels, or none.

Each event raises one tort or comes close to one. Restatement (Second) of Torts: harmful and
offensive contact as battery (§§ 13, 18), trespass to land (§ 158), conversion (§ 222A), negligence
(§ 281) and defamation (§ 558, which needs a false statement published to a third person). What is
told is meant and unprivileged, charges of theft are false, and "in private" is to the person alone.
"""

from __future__ import annotations

from typing import ClassVar

from judicaita.legal.tasks.element import Listed
from judicaita.legal.tasks.elements import ElementFamily, Findings
from judicaita.legal.tasks.family import AnswerType, Law, Level


def _tort(name: str, sentence: str, meeting: tuple[str, ...], failing: tuple[str, ...]) -> Listed:
    return Listed(
        name.replace(" ", "_"), (name,), (f"no {name}",), sentence, meeting=meeting, failing=failing
    )


class IssueSpotting(ElementFamily):
    """The answer lists every tort raised in alphabetical order, or says "none"."""

    name = "issue_spotting"
    title = "Spotting every tort that a story raises"
    law = Law(
        (
            *(f"Restatement (Second) of Torts § {n} (1965)" for n in ("13", "18", "158", "222A")),
            "Restatement (Second) of Torts § 281 (1965)",
            "Restatement (Second) of Torts § 558 (1977)",
        ),
        "US common law",
    )
    question = "Which torts did {who} commit?"
    subjects = ()
    answers: ClassVar[tuple[str, ...]] = (
        *("battery", "conversion", "defamation", "negligence", "trespass"),
        "none",
    )
    answer_type: ClassVar[AnswerType] = "multilabel"
    can_concede = False
    elements = (
        _tort(
            "battery",
            "{who} {fact}.",
            ("punched Kim", "kicked Kim", "spat on Kim", "slapped Kim"),
            ("shook hands", "waved at Kim"),
        ),
        _tort(
            "conversion",
            "{who} {fact}.",
            ("sold Kim's bike", "burned Kim's coat", "kept Kim's car", "pawned Kim's ring"),
            ("sold a bike", "gave back a ring"),
        ),
        _tort(
            "defamation",
            "{who} {fact}.",
            (
                "called Kim a thief in print",
                "told all that Kim stole",
                "posted lies on Kim",
                "broadcast lies on Kim",
            ),
            ("praised Kim in print", "called Kim a thief in private"),
        ),
        _tort(
            "negligence",
            "{who} {fact}.",
            (
                "hit Kim by careless driving",
                "dropped a brick on Kim",
                "left oil where Kim fell",
                "let a dog bite Kim",
            ),
            ("drove with care", "missed Kim with a brick"),
        ),
        _tort(
            "trespass",
            "{who} {fact}.",
            (
                "crossed Kim's field",
                "climbed Kim's fence",
                "camped on Kim's land",
                "dug in Kim's yard",
            ),
            ("walked on the road", "came as Kim's guest"),
        ),
    )
    background = ("{who} runs a bakery.", "{who} likes tea.", "{who} drove home.")
    easy_levels: ClassVar[tuple[Level, ...]] = (1, 2, 3)
    hard_levels: ClassVar[tuple[Level, ...]] = (4, 5, 6)

    def told_count(self, level: int) -> int:
        """Events told."""
        return {1: 2, 2: 3, 3: 4, 6: 4}.get(level, 5)

    def kinds_of_answer(self, level: int) -> tuple[str, ...]:
        """How many torts are raised."""
        return tuple(map(str, range(self.told_count(level) + 1)))

    def kind_of(self, answer: str) -> str:
        """How many torts the answer names."""
        return "0" if answer == "none" else str(answer.count(",") + 1)

    def conclude(self, findings: Findings) -> str:
        """See the class."""
        return ", ".join(name for name, raised in findings.items() if raised) or "none"
