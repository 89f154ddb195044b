"""UCC or common law: must an offeror keep an offer open that nobody paid for?

Under the UCC a merchant's signed writing that assures to hold an offer to buy or sell goods open
binds without consideration, for three months at most (§ 2-205; goods § 2-105(1), merchant
§ 2-104(1), in the broad sense of its comment 2: anyone acting in a trade). Everything but goods is
left to the common law, under which such an offer may be revoked. Every promise here assures that
the offer is held open and names no time. Option contracts (paid for), reliance (Restatement
(Second) of Contracts § 87) and the amendments of 2022 ("record" for "writing") are left out.
"""

from __future__ import annotations

from judicaita.legal.tasks.element import Listed
from judicaita.legal.tasks.elements import ElementFamily, Findings, all_met
from judicaita.legal.tasks.family import Law


class UccFirmOffer(ElementFamily):
    """Bound iff all four elements are met."""

    name = "ucc_firm_offer"
    title = "UCC or common law: firm offers of merchants"
    law = Law(("U.C.C. § 2-104(1)", "U.C.C. § 2-105(1)", "U.C.C. § 2-205"), "US states (UCC)")
    question = "Must {who} keep the offer open?"
    subjects = ("the offer", "the promise")
    elements = (
        Listed(
            "goods",
            ("under the UCC", "goods"),
            ("under common law", "no goods"),
            "{who} offered {fact}.",
            "cargo",
            meeting=("steel", "apples", "a tractor", "ten laptops"),
            failing=("a house", "legal advice"),
        ),
        Listed(
            "merchant",
            ("a merchant",),
            ("no merchant", "not a merchant"),
            "{who} is {fact}.",
            "trade",
            meeting=("a grain dealer", "a car dealer", "a wholesaler", "a tool maker"),
            failing=("a retired nurse", "a student"),
        ),
        Listed(
            "signed_writing",
            ("in signed writing", "signed and in writing"),
            ("not in signed writing", "without a signed writing"),
            "{who} promised {fact}.",
            "signature",
            meeting=(
                "in a signed letter",
                "by signed fax",
                "over a signature",
                "with a signed email",
            ),
            failing=("in spoken words", "in an unsigned note"),
        ),
        Listed(
            "in_time",
            ("within three months",),
            ("past three months", "after three months"),
            "{who} revoked {fact}.",
            "timing",
            meeting=("after a week", "after ten days", "after one month", "after two months"),
            failing=("after five months", "after a year"),
        ),
    )
    background = ("{who} runs a bakery.", "{who} likes tea.", "{who} sold a boat.")

    def conclude(self, findings: Findings) -> str:
        """See the module."""
        return all_met(findings)
