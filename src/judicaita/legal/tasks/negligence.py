"""Negligence: is a defendant liable?

Duty, breach, legal cause and harm, as the Restatement (Second) of Torts § 281 has them and § 328A
leaves them to the plaintiff to prove; no duty to rescue (§ 314). Defences (contributory and
comparative fault, assumption of risk) are left out.
"""

from __future__ import annotations

from judicaita.legal.tasks.element import Listed
from judicaita.legal.tasks.elements import ElementFamily, Findings, all_met
from judicaita.legal.tasks.family import Law


class Negligence(ElementFamily):
    """Liable iff all four elements are met."""

    name = "negligence"
    title = "The elements of negligence"
    law = Law(
        (
            "Restatement (Second) of Torts § 281 (1965)",
            "Restatement (Second) of Torts § 314 (1965)",
            "Restatement (Second) of Torts § 328A (1965)",
            "Palsgraf v. Long Island R.R. Co., 248 N.Y. 339 (1928)",
        ),
        "US common law",
    )
    question = "Is {who} liable in negligence?"
    subjects = ("the defendant",)
    elements = (
        Listed(
            "duty",
            ("a duty", "under a duty", "owed a duty"),
            ("no duty", "under no duty", "owed no duty"),
            "{who} acted as {fact}.",
            "duty",
            meeting=("a driver", "the doctor", "the pilot", "the shop owner"),
            failing=("a mere witness", "a far stranger"),
        ),
        Listed(
            "breach",
            ("careless", "a breach"),
            ("careful", "no breach"),
            "{who} {fact}.",
            "fault",
            meeting=("ran a red light", "skipped the checks", "fell asleep", "was texting"),
            failing=("took every care", "kept all the rules"),
        ),
        Listed(
            "causation",
            ("the cause", "caused by it"),
            ("not the cause", "caused by something else"),
            "{who}'s case is harm {fact}.",
            "causation",
            meeting=("from that act", "by that alone", "set off by it", "due to that"),
            failing=("from a storm", "from old illness"),
        ),
        Listed(
            "damage",
            ("harm done", "there is damage"),
            ("no harm done", "there is no damage"),
            "{who}'s victim {fact}.",
            "damage",
            meeting=("broke an arm", "lost a hand", "paid for repairs", "was burned"),
            failing=("walked off unhurt", "lost nothing"),
        ),
    )
    background = ("{who} saw a play.", "{who} likes tea.", "{who} drove home.")

    def conclude(self, findings: Findings) -> str:
        """See the module."""
        return all_met(findings)
