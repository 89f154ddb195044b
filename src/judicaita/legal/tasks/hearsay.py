"""Hearsay: does the rule against hearsay bar a statement?

A statement is barred (Fed. R. Evid. 802) if it was made out of court (801(c)(1)), is offered for
its truth (801(c)(2)), is not an opposing party's or its agent's (801(d)(2)(A), (D)) and falls under
no exception, of which two are told here: excited utterances (803(2)) and statements for medical
treatment (803(4)). The rules' other exclusions and exceptions are left out; an agent is taken to
speak within the scope of that relationship, and "to reveal fear" to mean that the words are
evidence of a state of mind without asserting it.
"""

from __future__ import annotations

from judicaita.legal.tasks.element import Listed
from judicaita.legal.tasks.elements import ElementFamily, Findings, all_met
from judicaita.legal.tasks.family import Law


class Hearsay(ElementFamily):
    """Barred iff all four elements are met."""

    name = "hearsay"
    title = "Hearsay and its exceptions"
    law = Law(
        (
            "Fed. R. Evid. 801(c)",
            "Fed. R. Evid. 801(d)(2)",
            "Fed. R. Evid. 802",
            "Fed. R. Evid. 803",
        ),
        "US federal",
    )
    question = "Does the hearsay rule bar {who}'s words?"
    subjects = ("the statement", "the words")
    elements = (
        Listed(
            "out_of_court",
            ("out of court", "made out of court", "outside court"),
            ("in court", "made in court"),
            "{who} spoke {fact}.",
            "setting",
            meeting=("at lunch", "by phone", "at the scene", "on the bus"),
            failing=("on the stand", "at this trial"),
        ),
        Listed(
            "for_truth",
            ("for its truth", "offered for its truth", "for the truth of the matter"),
            ("not for its truth", "offered for something else"),
            "{who}'s words go {fact}.",
            "purpose",
            meeting=(
                "to prove the debt",
                "to establish a sale",
                "as proof of speed",
                "in proof of a promise",
            ),
            failing=("to show notice", "to reveal fear"),
        ),
        Listed(
            "not_opponent",
            ("no opponent", "not an opposing party"),
            ("an opponent", "an opposing party"),
            "{who} is {fact}.",
            "neutrality",
            meeting=("a bystander", "a nurse", "a neighbor", "a guest"),
            failing=("the other side", "the rival's agent"),
        ),
        Listed(
            "no_exception",
            ("no exception", "under no exception"),
            ("an exception", "under an exception"),
            "{who} told it {fact}.",
            "calm",
            meeting=("after long thought", "weeks later", "from memory", "as a joke"),
            failing=("in sudden fright", "to get treated"),
        ),
    )
    background = ("{who} had a cold.", "{who} wore a red hat.", "{who} drove home.")

    def conclude(self, findings: Findings) -> str:
        """See the module."""
        return all_met(findings)
