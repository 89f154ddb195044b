"""Personal jurisdiction: may the courts of the forum state hear a suit against a defendant?

General jurisdiction: an individual is at home where domiciled (Daimler AG v. Bauman). Else specific
jurisdiction: purposeful contacts with the forum (International Shoe), a claim that arises out of
them or relates to them (Ford), and fairness (Burger King). Consent, presence ("tag") and
corporations are left out.
"""

from __future__ import annotations

from types import MappingProxyType

from judicaita.legal.tasks.element import Listed
from judicaita.legal.tasks.elements import ElementFamily, Findings
from judicaita.legal.tasks.family import Law


class PersonalJurisdiction(ElementFamily):
    """Yes iff at home in the forum, or contacts, relation and fairness are all met."""

    name = "personal_jurisdiction"
    title = "Personal jurisdiction, general and specific"
    law = Law(
        (
            "International Shoe Co. v. Washington, 326 U.S. 310 (1945)",
            "Burger King Corp. v. Rudzewicz, 471 U.S. 462 (1985)",
            "Daimler AG v. Bauman, 571 U.S. 117 (2014)",
            "Ford Motor Co. v. Montana Eighth Judicial District Court, 592 U.S. 351 (2021)",
        ),
        "US federal",
    )
    question = "Can this state's courts hear {who}?"
    subjects = ("the defendant", "the claim", "the suit")
    undisputed = MappingProxyType({"at_home": False})
    elements = (
        Listed(
            "at_home",
            ("at home here",),
            ("not at home here", "at home elsewhere"),
            "{who} lives {fact}.",
            meeting=("in this state",),
            failing=("in Ohio", "in Texas", "in Maine", "in Iowa", "abroad"),
        ),
        Listed(
            "contacts",
            ("with contacts here", "in contact with the state"),
            ("without contacts here",),
            "{who} {fact}.",
            "contact",
            meeting=("sold here often", "ran ads here", "had a shop here"),
            failing=("never came here",),
        ),
        Listed(
            "related",
            ("related to them", "arising from the contacts"),
            ("not related to them", "unrelated to the contacts"),
            "{who} is sued {fact}.",
            "relation",
            meeting=("for those sales", "over that trade", "for these dealings"),
            failing=("for a crash far away",),
        ),
        Listed(
            "fair",
            ("fair", "reasonable"),
            ("unfair", "unreasonable"),
            "{who} would travel {fact}.",
            "fairness",
            meeting=("one hour", "by day train", "with ease"),
            failing=("at ruinous cost",),
        ),
    )
    background = ("{who} runs a bakery.", "{who} likes tea.", "{who} drove home.")

    def conclude(self, findings: Findings) -> str:
        """See the module."""
        specific = findings["contacts"] and findings["related"] and findings["fair"]
        return "Yes" if findings["at_home"] or specific else "No"
