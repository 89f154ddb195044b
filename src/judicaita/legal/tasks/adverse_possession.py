"""Adverse possession: does a possessor own the land, or is a needed fact missing?

Illinois asks for twenty years (735 ILCS 5/13-101) of possession that is continuous, hostile,
actual, open, notorious and exclusive, under a claim of title (Joiner v. Janssen). Those told of
here farmed the land as theirs all the time they stayed, so that four points remain; a mistake about
the boundary does not make it less hostile. An element that fails settles the question; else a
missing fact leaves it open: "Insufficient facts". Colour of title and tacking are left out.
"""

from __future__ import annotations

from typing import ClassVar

from judicaita.legal.tasks.element import Listed
from judicaita.legal.tasks.elements import ElementFamily, Findings
from judicaita.legal.tasks.family import AnswerType, Law


class AdversePossession(ElementFamily):
    """No if an element fails, else Insufficient facts if one is open, else Yes."""

    name = "adverse_possession"
    title = "Adverse possession, with facts that may be missing"
    law = Law(("735 ILCS 5/13-101", "Joiner v. Janssen, 85 Ill. 2d 74 (1981)"), "Illinois")
    question = "Does {who} own the land?"
    subjects = ("the possession", "the use")
    answers: ClassVar[tuple[str, ...]] = ("Yes", "No", "Insufficient facts")
    answer_type: ClassVar[AnswerType] = "multiclass"
    elements = (
        Listed(
            "twenty_years",
            ("twenty years or more", "long enough"),
            ("under twenty years", "not long enough"),
            "{who} stayed {fact}.",
            "stay",
            can_be_missing=True,
            meeting=("for 21 years", "for 25 years", "for 30 years", "for 40 years"),
            failing=("for a decade", "for 19 years"),
        ),
        Listed(
            "open",
            ("open", "open and notorious"),
            ("hidden", "not open"),
            "{who} farmed {fact}.",
            "farming",
            can_be_missing=True,
            meeting=("in plain view", "by the road", "with a barn", "behind a sign"),
            failing=("in secret", "by night"),
        ),
        Listed(
            "hostile",
            ("hostile",),
            ("not hostile",),
            "{who} came {fact}.",
            "coming",
            can_be_missing=True,
            meeting=("without leave", "by mistake", "as if owner", "over protest"),
            failing=("on a lease", "with leave"),
        ),
        Listed(
            "exclusive",
            ("exclusive",),
            ("not exclusive", "shared"),
            "{who} held it {fact}.",
            "holding",
            can_be_missing=True,
            meeting=("alone", "behind a fence", "by one lock", "for one family"),
            failing=("beside the owner", "with the public"),
        ),
    )
    background = ("{who} runs a bakery.", "{who} likes tea.", "{who} drove home.")

    def conclude(self, findings: Findings) -> str:
        """See the module."""
        if False in findings.values():
            return "No"
        return "Insufficient facts" if None in findings.values() else "Yes"
