"""Non-competes: is an employee's covenant not to compete enforceable?

Texas asks that the covenant is ancillary to or part of an otherwise enforceable agreement, and that
its limits of time, area and scope of activity are reasonable (Tex. Bus. & Com. Code § 15.50(a)).
Reformation of an unreasonable covenant (§ 15.51(c)) and physicians (§ 15.50(b)) are left out. No
federal ban stands in the way: the FTC's rule of 2024 was set aside before it took effect (Ryan LLC
v. FTC, N.D. Tex. Aug. 20, 2024).
"""

from __future__ import annotations

from judicaita.legal.tasks.element import Listed
from judicaita.legal.tasks.elements import ElementFamily, Findings, all_met
from judicaita.legal.tasks.family import Law


class NonCompete(ElementFamily):
    """Enforceable iff all four elements are met."""

    name = "non_compete"
    title = "Enforceability of covenants not to compete"
    law = Law(
        (
            "Tex. Bus. & Com. Code § 15.50(a)",
            "Marsh USA Inc. v. Cook, 354 S.W.3d 764 (Tex. 2011)",
        ),
        "Texas",
    )
    question = "Is {who}'s covenant enforceable?"
    subjects = ("the covenant", "its")
    elements = (
        Listed(
            "ancillary",
            ("part of a bargain", "ancillary"),
            ("no part of a bargain", "not ancillary"),
            "{who} signed {fact}.",
            "bargain",
            meeting=(
                "for trade secrets",
                "for stock options",
                "for special training",
                "to sell the firm",
            ),
            failing=("for nothing", "under mere threats"),
        ),
        Listed(
            "time",
            ("short enough", "reasonable in time"),
            ("too long", "unreasonable in time"),
            "{who} is bound {fact}.",
            "term",
            meeting=("for one year", "for two years", "for six months", "for nine months"),
            failing=("for thirty years", "for life"),
        ),
        Listed(
            "area",
            ("small enough", "reasonable in area"),
            ("too wide", "unreasonable in area"),
            "{who} must keep out of {fact}.",
            "area",
            meeting=("one county", "a small town", "two streets", "the old district"),
            failing=("all the world", "every state"),
        ),
        Listed(
            "scope",
            ("narrow enough", "reasonable in scope"),
            ("too broad", "unreasonable in scope"),
            "{who} may not do {fact}.",
            "scope",
            meeting=("the same job", "like sales work", "similar repairs", "rival design"),
            failing=("any work at all", "paid work of any kind"),
        ),
    )
    background = ("{who} runs a bakery.", "{who} likes tea.", "{who} moved house.")

    def conclude(self, findings: Findings) -> str:
        """See the module."""
        return all_met(findings)
