"""Contract terms: did a notice end a lease that would otherwise renew itself?

The contract's own terms decide: who may end it, how long before ("40 days of 60": 40 days' notice
where the contract asks for 60), in what form, and to whom. Notice so given is a condition
(Restatement (Second) of Contracts § 224), and without it the end that depends on it does not come
about (§ 225). Excuse, waiver, substantial compliance and statutes for residential leases are left
out.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from judicaita.legal.tasks.element import Element, Listed
from judicaita.legal.tasks.elements import ElementFamily, Findings, all_met
from judicaita.legal.tasks.family import Law

_SHARE_MET = 2 / 3


@dataclass(frozen=True)
class InTime(Element):
    """Days of notice given, and days that the contract asks for."""

    due: tuple[int, ...] = (30, 60)
    given: tuple[int, ...] = (10, 20, 30, 40, 50, 60, 70, 80)

    def draw(self, rng: random.Random, is_met: bool | None = None) -> str:
        """See `Element`."""
        wanted = rng.random() < _SHARE_MET if is_met is None else is_met
        pairs = [(g, d) for g in self.given for d in self.due if (g >= d) == wanted]
        given, due = rng.choice(pairs)
        return f"{given} days of {due}"

    def is_met(self, fact: str) -> bool:
        """See `Element`."""
        given, due = map(int, re.findall(r"\d+", fact))
        return given >= due

    def recognise(self, words: str) -> str | None:
        """See `Element`."""
        # No more digits than a calendar needs: endless numbers are none.
        return words if re.fullmatch(r"[0-9]{1,4} days of [0-9]{1,4}", words) else None


class ContractNotice(ElementFamily):
    """Ended iff the right party gave notice in time, in the form agreed, to whom was agreed."""

    name = "contract_notice"
    title = "Notice of termination under a contract's own terms"
    law = Law(
        (
            "Restatement (Second) of Contracts § 224 (1981)",
            "Restatement (Second) of Contracts § 225 (1981)",
        ),
        "US common law",
    )
    question = "Did {who} end the lease?"
    subjects = ("the notice",)
    elements = (
        InTime(
            "in_time", ("in time",), ("too late", "not in time"), "{who} gave {fact}.", "timing"
        ),
        Listed(
            "in_form",
            ("in due form",),
            ("in the wrong form", "not in due form"),
            "{who} sent {fact}.",
            "form",
            meeting=(
                "a letter as agreed",
                "a fax as agreed",
                "a deed as agreed",
                "a form as agreed",
            ),
            failing=("a text for a letter", "an email for a deed"),
        ),
        Listed(
            "right_party",
            ("the right party",),
            ("the wrong party", "not the right party"),
            "{who} acted as {fact}.",
            "role",
            meeting=("the tenant", "the lessee", "the assignee", "agent of the tenant"),
            failing=("a mere friend", "a subtenant"),
        ),
        Listed(
            "right_recipient",
            ("to the right place",),
            ("to the wrong place", "not to the right place"),
            "{who} wrote {fact}.",
            "address",
            meeting=(
                "to the landlord",
                "to the owner",
                "to the named office",
                "care of the owner's agent",
            ),
            failing=("to a bank", "to an old address"),
        ),
    )
    background = ("{who} runs a bakery.", "{who} likes tea.", "{who} drove home.")

    def conclude(self, findings: Findings) -> str:
        """See the module."""
        return all_met(findings)
