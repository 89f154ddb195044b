"""The step checker against labels that it had no part in: steps labelled by hand."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from judicaita.errors import DataError
from judicaita.legal.tasks import FAMILIES, check_trace

T, F, N = "true", "false", "not checkable"

HEARSAY = (
    "Ava spoke at lunch. Ava's words go to prove the debt. Ava is the rival's agent. Ava told it "
    "from memory. Does the hearsay rule bar Ava's words?"
)
NEGLIGENCE = (
    "Ava acted as a driver. Mia acted as a mere witness. Mia ran a red light. Ava took every care. "
    "Ava's victim broke an arm. Mia's victim lost nothing. Ava's case is harm from a storm. Mia's "
    "case is harm due to that. Is Ava liable in negligence?"
)
NON_COMPETE = (
    "Ava signed for stock options. Ava is bound for life. Nothing else is disputed. "
    "Is Ava's covenant enforceable?"
)
UCC = (
    "Ava offered a house. Ava is a car dealer. Ava promised in an unsigned note. Ava revoked after "
    "a week. Mia sold a boat. Must Ava keep the offer open?"
)
FORUM = (
    "Ava lives in Ohio. Ava sold here often. Ava is sued for a crash far away. Ava would travel "
    "one hour. Can this state's courts hear Ava?"
)
NOTICE = (
    "Ava gave 50 days of 60. Ava sent a fax as agreed. Ava acted as a subtenant. Ava wrote care of "
    "the owner's agent. Did Ava end the lease?"
)
NEGLIGENCE_CONCEDED = (
    "Ava's duty is conceded. Ava ran a red light. Mia drove home. Ava's damage is conceded. "
    "Nothing else is disputed. Is Ava liable in negligence?"
)
FORUM_CONCEDED = (
    "Ava lives in Texas. Ava's contact is conceded. Ava would travel at ruinous cost. "
    "Nothing else is disputed. Can this state's courts hear Ava?"
)
NOTICE_CONCEDED = (
    "Ava's timing is conceded. Ava sent a text for a letter. Nothing else is disputed. "
    "Did Ava end the lease?"
)
LAND_CONCEDED = (
    "Ava's stay is conceded. There is no word on Ava's farming. Ava came on a lease. "
    "Nothing else is disputed. Does Ava own the land?"
)
TORTS = (
    "Ava shook hands. Ava sold Kim's bike. Ava posted lies on Kim. Ava drove with care. "
    "Which torts did Ava commit?"
)
LAND = (
    "Ava stayed for 25 years. There is no word on Ava's farming. Ava came by mistake. Ava held it "
    "with the public. Does Ava own the land?"
)
LAND_SILENT = (
    "Ava stayed for 25 years. Ava came by mistake. Ava held it alone. Mia likes tea. "
    "Does Ava own the land?"
)
SUIT = (
    "Ava is from Ohio. Mia is from West Virginia. Noah is from Ohio. Ava and Mia both sue Noah for "
    "trespass for $46,000 and alimony for $30,000. Is there diversity jurisdiction over Ava's suit?"
)
SUITS = (
    "Ava is from Ohio. Mia is from Iowa. Noah is from Utah. Ava and Mia both sue Noah for trespass "
    "for $75,000. Liam is from Texas. Emma is from Maine. Henry is from Texas. Liam and Emma both "
    "sue Henry for divorce for $90,000. Is there diversity jurisdiction over Ava's suit?"
)
TWO_DEFENDANTS = (
    "Ava is from Ohio. Mia is from Ohio. Noah is from Utah. Liam is from Texas. Ava and Mia both "
    "sue Noah for trespass for $46,000 and defamation for $30,000. Ava and Mia both sue Liam for "
    "negligence for $5,000 and nuisance for $1,000."
)
LATE = (
    "Ava was hurt on March 7, 2013 and sued on Tuesday, March 10, 2015. Ava was born on May 2, "
    "1994. Ava's defendant was out of state for 40 days before the injury. Is Ava's suit in time?"
)
TOLLED = (
    "Ava was hurt on March 4, 2013 and sued on Monday, March 16, 2015. Ava's defendant was out of "
    "state for 10 days after the injury. Is Ava's suit in time?"
)
MINOR = (
    "Ava was hurt on May 14, 2011 and sued on Tuesday, December 3, 2013. Ava was born on December "
    "3, 1993. Is Ava's suit in time?"
)

LABELLED: dict[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("hearsay", HEARSAY): (
        ("at lunch, so out of court.", T),
        ("First, Ava spoke at lunch, so it was made out of court.", T),
        ("Out of court, because she spoke at lunch.", T),
        ("**At lunch**, therefore outside court", T),
        ("to prove the debt, which means that the words are for the truth of the matter.", T),
        ("The statement is out of court.", T),
        ("the rival's agent, so an opposing party.", T),
        ("from memory, so under no exception.", T),
        ("at lunch, so in court.", F),
        ("at lunch, so not out of court.", F),
        ("on the bus, so out of court.", F),
        ("the rival's agent, so no opponent.", F),
        ("at lunch, so for its truth.", F),
        ("in sudden fright, so an exception.", F),
        ("The statement is not for its truth.", F),
        ("Ava spoke at lunch.", N),
        ("at lunch", N),
        ("at lunch, so hearsay.", N),
        ("Does the hearsay rule bar Ava's words?", N),
        ("out of court is out of court.", N),
        ("Mia spoke at lunch, so out of court.", N),
        ("nobody spoke at lunch, so out of court.", N),
        ("at lunch, so out of court, so for its truth.", N),
        ("at lunch, so out of court and for its truth.", N),
        ("at lunch, so perhaps out of court.", N),
        ("if at lunch, so out of court.", N),
    ),
    ("negligence", NEGLIGENCE): (
        ("a driver, so a duty.", T),
        ("Ava acted as a driver, thus under a duty.", T),
        ("took every care, so careful.", T),
        ("There is damage since Ava's victim broke an arm.", T),
        ("from a storm, so not the cause.", T),
        ("no breach", T),
        ("a mere witness, so no duty.", F),  # that is Mia
        ("ran a red light, so careless.", F),
        ("she ran a red light, hence a breach.", F),
        ("took every care, so careless.", F),
        ("from a storm, so the cause.", F),
        ("harm done, since the victim walked off unhurt.", F),
        ("harm done, since she walked off unhurt.", N),  # who did?
        ("a duty, so a breach.", F),  # she took every care
        ("Mia ran a red light, so careless.", N),
        ("her victim broke an arm, so harm done.", T),
        ("the victim broke an arm, so harm done.", T),
        ("it was from a storm, so not the cause.", T),
        ("duty is conceded, so a duty.", F),  # it is told
        ("damage is conceded, so harm done.", F),
        ("Ava broke an arm, so harm done.", N),  # that was her victim
        ("she broke an arm, so harm done.", N),
        ("the defendant broke an arm, so harm done.", N),
        ("the victim took every care, so careful.", N),
        ("the victim is careful.", N),
        ("took every care, so the victim was careful.", N),
        ("Ava's took every care, so careful.", N),
        ("Ava had a driver, so a duty.", N),
        ("never took every care, so careful.", N),
        ("someone took every care, so careful.", N),
        ("Ava took every care, so careful, and it rained.", N),
        ("careful? yes", N),
        ("", N),
        ("...", N),
        ("it is what it is", N),
    ),
    ("negligence", NEGLIGENCE_CONCEDED): (
        ("duty is conceded, so a duty.", T),
        ("Ava's duty is conceded, so a duty.", T),
        ("DUTY IS CONCEDED, SO UNDER A DUTY", T),
        ("First, a duty because Ava's duty is conceded.", T),
        ("damage is conceded, which means that there is damage.", T),
        ("Ava owed a duty.", T),
        ("ran a red light, so careless.", T),
        ("duty is conceded, so no duty.", F),
        ("duty is conceded, so not under a duty.", F),
        ("duty is conceded, so careless.", F),
        ("duty is conceded, so harm done.", F),
        ("fault is conceded, so careless.", F),  # it is told
        ("Ava's fault is conceded, so careless.", F),
        ("careless because fault is conceded.", F),
        ("causation is conceded, so the cause.", F),  # undisputed, and not conceded
        ("a driver, so a duty.", F),  # of whom nothing is told
        ("no word on duty, so no duty.", F),
        ("no word on duty, so a duty.", F),
        ("duty is open.", F),
        ("a mere witness, so no duty.", F),
        ("duty is conceded.", N),
        ("Ava's duty is conceded.", N),
        ("the cause.", N),  # not in dispute
        ("duty is not conceded, so a duty.", N),
        ("Ava's duty is not conceded, so a duty.", N),
        ("not duty is conceded, so a duty.", N),
        ("nobody's duty is conceded, so a duty.", N),
        ("Mia's duty is conceded, so a duty.", N),
        ("Zoe's duty is conceded, so a duty.", N),
        ("conceded, so a duty.", N),
        ("everything is conceded, so a duty.", N),
        ("duty and damage is conceded, so a duty.", N),
        ("duty is conceded, so duty is conceded.", N),
        ("duty is conceded, so conceded.", N),
        ("mood is conceded, so careless.", N),
        ("Nothing else is disputed, so the cause.", N),
        ("Mia drove home, so careless.", N),
    ),
    ("non_compete", NON_COMPETE): (
        ("for stock options, so part of a bargain.", T),
        ("for life, so too long.", T),
        ("Too long, given that Ava is bound for life.", T),
        ("the covenant is unreasonable in time.", T),
        ("for life, so short enough.", F),
        ("for one year, so short enough.", F),
        ("every state, so too wide.", F),
        ("the covenant is too wide.", F),  # not in dispute, so narrow
        ("for stock options, so too long.", F),
        ("small enough.", N),  # not in dispute
        ("nothing else is disputed.", N),
        ("for life", N),
        ("the covenant is too long, too long.", N),
    ),
    ("ucc_firm_offer", UCC): (
        ("a house, so under common law.", T),
        ("A CAR DEALER, SO A MERCHANT.", T),
        ("in an unsigned note, hence without a signed writing.", T),
        ("after a week, so within three months.", T),
        ("not goods", T),
        ("a house, so under the UCC.", F),
        ("a car dealer, so no merchant.", F),
        ("in a signed letter, so in signed writing.", F),
        ("after a week, so a merchant.", F),
        ("Mia sold a boat, so goods.", N),
        ("a boat, so goods.", F),  # it was a house
        ("a house is no steel, so under common law.", N),
    ),
    ("personal_jurisdiction", FORUM): (
        ("in Ohio, so not at home here.", T),
        ("sold here often, so with contacts here.", T),
        ("Ava sold here often, so in contact with the state.", T),
        ("for a crash far away, so unrelated to the contacts.", T),
        ("one hour, so fair.", T),
        ("in this state, so at home here.", F),
        ("in Ohio, so at home here.", F),
        ("never came here, so without contacts here.", F),
        ("the suit is unreasonable.", F),
        ("never sold here often, so with contacts here.", N),
        ("one hour or two, so fair.", N),
        ("the court can hear Ava.", N),
    ),
    ("personal_jurisdiction", FORUM_CONCEDED): (
        ("contact is conceded, so with contacts here.", T),
        ("Ava's contact is conceded, hence in contact with the state.", T),
        ("at ruinous cost, so unfair.", T),
        ("contact is conceded, so without contacts here.", F),
        ("sold here often, so with contacts here.", F),  # of sales nothing is told
        ("contact is conceded, so fair.", F),
        ("fairness is conceded, so fair.", F),
        ("relation is conceded, so related to them.", F),
        ("the claim is related to them.", N),  # not in dispute
        ("home is conceded, so not at home here.", N),
        ("is conceded, so not at home here.", N),
        (" is conceded, so at home here.", F),
    ),
    ("contract_notice", NOTICE): (
        ("50 days of 60, so too late.", T),
        ("Ava gave 50 days of 60, so not in time.", T),
        ("it was 50 days of 60, so too late.", T),
        ("a fax as agreed, so in due form.", T),
        ("Ava acted as a subtenant, so the wrong party.", T),
        ("care of the owner's agent, so to the right place.", T),
        ("She wrote care of the owner's agent, hence the notice was to the right place.", T),
        ("50 days of 60, so in time.", F),
        ("60 days of 60, so in time.", F),
        ("50 days of 50, so in time.", F),
        ("60 days of 50, so too late.", F),
        ("050 days of 60, so too late.", F),
        ("a letter as agreed, so in due form.", F),
        ("a text for a letter, so in the wrong form.", F),
        ("the tenant, so the right party.", F),
        ("to the owner, so to the right place.", F),  # it was to the agent
        ("care of the owner's agent, so to the wrong place.", F),
        ("timing is conceded, so in time.", F),
        ("50 days, so too late.", N),  # of how many?
        ("50 is less than 60.", N),
        ("a fax, so in due form.", N),
        ("the notice sent a fax as agreed, so in due form.", N),
    ),
    ("contract_notice", NOTICE_CONCEDED): (
        ("timing is conceded, so in time.", T),
        ("Ava's timing is conceded, so the notice was in time.", T),
        ("a text for a letter, so in the wrong form.", T),
        ("60 days of 60, so in time.", F),  # of days nothing is told
        ("timing is conceded, so too late.", F),
        ("timing is conceded, so in due form.", F),
        ("role is conceded, so the right party.", F),
        ("the notice was too late because timing is conceded.", F),
        ("form is conceded, so in the wrong form.", F),
        ("the right party.", N),  # not in dispute
    ),
    ("issue_spotting", TORTS): (
        ("shook hands, so no battery.", T),
        ("sold Kim's bike, so conversion.", T),
        ("Ava posted lies on Kim, so defamation.", T),
        ("No negligence because she drove with care.", T),
        ("shook hands, so battery.", F),
        ("punched Kim, so battery.", F),
        ("posted lies on Kim, so no defamation.", F),
        ("came as Kim's guest, so no trespass.", F),  # told nowhere
        ("sold Kim's bike, so defamation.", F),
        ("no trespass", N),  # of that nothing is told
        ("never posted lies on Kim, so defamation.", N),
        ("Kim sold Kim's bike, so conversion.", N),
        ("conversion and defamation.", N),
    ),
    ("adverse_possession", LAND): (
        ("for 25 years, so twenty years or more.", T),
        ("no word on farming, so farming is open.", T),
        ("There is no word on Ava's farming, so farming is open.", T),
        ("by mistake, so hostile.", T),
        ("with the public, so shared.", T),
        ("for a decade, so under twenty years.", F),
        ("in plain view, so open.", F),
        ("no word on stay, so stay is open.", F),
        ("by mistake, so not hostile.", F),
        ("the possession is exclusive.", F),
        ("no word on farming, so hidden.", F),
        ("no word on Ava's mood, so mood is open.", N),
        ("no word on farming", N),
    ),
    ("adverse_possession", LAND_CONCEDED): (
        ("stay is conceded, so twenty years or more.", T),
        ("Ava's stay is conceded, so long enough.", T),
        ("no word on farming, so farming is open.", T),
        ("on a lease, so not hostile.", T),
        ("stay is conceded, so under twenty years.", F),
        ("stay is conceded, so stay is open.", F),
        ("stay is conceded, so farming is open.", F),
        ("for 40 years, so twenty years or more.", F),
        ("farming is conceded, so open.", F),
        ("farming is conceded, so farming is open.", F),
        ("no word on stay, so stay is open.", F),
        ("coming is conceded, so not hostile.", F),
        ("holding is conceded, so exclusive.", F),  # undisputed, and not conceded
        ("no word on holding, so holding is open.", F),
        ("stay is open.", F),
        ("exclusive", N),  # not in dispute
    ),
    ("adverse_possession", LAND_SILENT): (
        ("no word on farming, so farming is open.", T),
        ("alone, so exclusive.", T),
        ("in secret, so hidden.", F),
        ("no word on holding, so holding is open.", F),
        ("Mia likes tea, so farming is open.", N),
    ),
    ("diversity", SUIT): (
        ("Plaintiffs: Ohio, West Virginia.", T),
        ("The plaintiffs are from West Virginia and Ohio.", T),
        ("Defendants: Ohio.", T),
        ("the defendant is a citizen of Ohio", T),
        ("Ohio is on both sides, so diversity is not complete.", T),
        ("Diversity is not complete because both sides share Ohio.", T),
        ("There is no complete diversity.", T),
        ("$46,000 + $30,000 = $76,000, more than $75,000.", T),
        ("$30,000 + $46,000 = $76,000, which means it is over $75,000.", T),
        ("Against Noah: $46,000 and $30,000 make $76,000, above $75,000", T),
        ("$76,000 exceeds $75,000, so the amount is met.", T),
        ("The amount in controversy is met.", T),
        ("Alimony is excepted.", T),
        ("The domestic relations exception applies, since alimony is excepted.", T),
        ("Plaintiffs: Ohio.", F),
        ("Plaintiffs: Ohio, Virginia.", F),
        ("Plaintiffs: Ohio, Ohio, West Virginia.", F),
        ("Defendants: Ohio, West Virginia.", F),
        ("West Virginia is on both sides, so diversity is not complete.", F),
        ("No state is on both sides, so diversity is complete.", F),
        ("Ohio is on both sides, so diversity is complete.", F),
        ("$46,000 + $30,000 = $77,000, more than $75,000.", F),
        ("$46,000 + $30,000 = $76,000, not more than $75,000.", F),
        ("$46,000, not more than $75,000.", F),  # one claim of two
        ("$46,000 + $40,000 = $86,000, more than $75,000.", F),
        ("The amount is not met.", F),
        ("Trespass and alimony are not excepted.", F),
        ("Trespass is excepted.", F),
        ("Divorce is excepted.", F),  # nobody sues for it
        ("No exception applies.", F),
        ("The probate exception applies.", F),
        ("Ohio is on both sides, so the amount is met.", F),
        ("Ava is from Ohio.", N),
        ("Ava and Mia both sue Noah for trespass for $46,000 and alimony for $30,000.", N),
        ("$46,000 + $30,000 = $76,000.", N),
        ("$76,000, more than $50,000.", N),
        ("Trespass is not excepted.", N),  # true, but of one cause of two
        ("Plaintiffs: Ohio, West Virginia. Defendants: Ohio.", N),
        ("Plaintiffs: Ohio, West Virginia, as everyone knows.", N),
        ("Is there diversity jurisdiction over Ava's suit?", N),
        ("Liam is from Ohio, so diversity is not complete.", N),
        ("There is no jurisdiction.", N),
        ("Ohio is Ohio.", N),
    ),
    ("diversity", SUITS): (
        ("Plaintiffs: Ohio, Iowa.", T),
        ("No state is on both sides, so diversity is complete.", T),
        ("$75,000, not more than $75,000.", T),
        ("$75,000, exactly $75,000, so the amount is not met.", T),
        ("Trespass is not excepted.", T),
        ("Plaintiffs: Texas, Maine.", F),  # the other suit's
        ("Texas is on both sides, so diversity is not complete.", F),
        ("$90,000, more than $75,000.", F),
        ("$75,000, more than $75,000.", F),
        ("$75,000, less than $75,000.", F),
        ("Divorce is excepted.", F),
        ("Against Henry: $90,000, more than $75,000.", N),
        ("In Liam's suit Texas is on both sides.", N),
    ),
    ("diversity", TWO_DEFENDANTS): (
        ("Plaintiffs: Ohio, Ohio.", T),
        ("The plaintiffs are from Ohio.", T),
        ("$46,000 + $30,000 = $76,000, more than $75,000.", T),
        ("Against Liam: $5,000 + $1,000 = $6,000, not more than $75,000.", T),
        ("Against Noah: $5,000 + $1,000 = $6,000, not more than $75,000.", F),
        ("$46,000 + $5,000 = $51,000, not more than $75,000.", F),
        ("$76,000 + $6,000 = $82,000, more than $75,000.", F),
        ("The amount is met.", F),
        ("The amount is not met.", N),  # it does not say which sum
        ("No cause is excepted.", N),  # not in dispute here
    ),
    ("statute_of_limitations", LATE): (
        ("two years end on March 7, 2015.", T),
        ("Two years from March 7, 2013 run out on March 7, 2015", T),
        ("two years run to 2015-03-07", T),
        ("18 on May 2, 2012, so no minor.", T),
        ("No minor because Ava was 18 on May 2, 2012.", T),
        ("she was not a minor.", T),
        ("40 days away before the injury, so no time is added.", T),
        ("the defendant was 40 days out of state before the injury, hence no tolling.", T),
        ("March 7, 2015 is a Saturday, so the last day is March 9, 2015.", T),
        ("The last day is Monday, March 9, 2015.", T),
        ("March 10, 2015 is after March 9, 2015.", T),
        ("Filed on Tuesday, March 10, 2015, which is not on or before March 9, 2015.", N),
        ("March 10, 2015 is after March 9, 2015, so the suit is late.", T),
        ("two years end on March 6, 2015.", F),
        ("two years end on March 7, 2014.", F),
        ("two years end on February 30, 2015.", F),
        ("18 on May 2, 2011, so no minor.", F),
        ("18 on May 2, 2012, so the time ends on May 2, 2014.", F),
        ("40 days away before the injury, so the time ends on April 16, 2015.", F),
        ("40 days away after the injury, so no time is added.", F),
        ("41 days away before the injury, so no time is added.", F),
        ("March 7, 2015 is a Saturday, so it stands.", F),
        ("March 7, 2015 is a Friday, so it stands.", F),
        ("March 7, 2015 is a Saturday, so the last day is March 8, 2015.", F),
        ("The last day is Tuesday, March 9, 2015.", F),
        ("March 10, 2015 is not after March 9, 2015.", F),
        ("March 10, 2015 is after March 7, 2015.", F),  # not the last day
        ("March 10, 2015 is after March 9, 2015, so the suit is in time.", F),
        ("40 days away before the injury, so no minor.", F),
        ("Ava was born on May 2, 1994.", N),
        ("18 on May 2, 2012.", N),
        ("March 7, 2015 is a Saturday.", N),
        ("it stands.", N),
        ("the suit is late.", N),
        ("no tolling.", N),  # of what?
        ("March 7, 2015 is March 7, 2015.", N),
        ("Mia was 18 on May 2, 2012, so no minor.", N),
        ("two years end on March 7, 2015, and that is that.", N),
        ("two years end on @0.", N),
        ("Is Ava's suit in time?", N),
    ),
    ("statute_of_limitations", TOLLED): (
        ("two years end on March 4, 2015.", T),
        ("10 days away after the injury, so the time ends on March 14, 2015.", T),
        ("March 14, 2015 is a Saturday, so it moves to March 16, 2015.", T),
        ("March 16, 2015 is not after March 16, 2015.", T),
        ("sued on March 16, 2015, on or before March 16, 2015, so the suit is in time.", T),
        ("10 days away after the injury, so no time is added.", F),
        ("10 days away after the injury, so the time ends on March 16, 2015.", F),
        ("March 4, 2015 is a Wednesday, so it stands.", F),
        ("March 16, 2015 is before March 16, 2015.", F),
        ("no tolling.", F),
        ("the time ends on March 14, 2015.", N),
        ("not a minor.", N),  # nothing is told of it
        ("March 4, 2015 is a Wednesday.", N),
    ),
    ("statute_of_limitations", MINOR): (
        ("18 on December 3, 2011, so the time ends on December 3, 2013.", T),
        ("a minor, so the time ends on December 3, 2013.", T),
        ("December 3, 2013 is a Tuesday, so it stands.", T),
        ("18 on December 3, 2011, so no minor.", F),
        ("18 on December 3, 2011, so the time ends on December 2, 2013.", F),
        ("two years end on December 3, 2013.", F),
        ("18 on December 3, 2011, so a minor.", N),
        ("10 days away after the injury, so the time ends on May 24, 2013.", F),
    ),
}
"""(family, question) → steps and what is so of each, by hand."""

CASES = [(*key, step, label) for key, steps in LABELLED.items() for step, label in steps]


@pytest.mark.parametrize(("family", "question", "step", "label"), CASES)
def test_steps_labelled_by_hand(family: str, question: str, step: str, label: str) -> None:
    chosen = FAMILIES[family]
    verdict = chosen.check(chosen.parse(question), step)
    assert verdict.status == label, verdict
    assert bool(verdict.reason) == (label != T)


def test_every_family_has_steps_of_each_kind() -> None:
    kinds = {name: Counter(case[3] for case in CASES if case[0] == name) for name in FAMILIES}
    assert all(min(kinds[name][label] for label in (T, F, N)) >= 2 for name in FAMILIES), kinds


# ── what nobody foresaw ──────────────────────────────────────────────────────────────────────────

questions = st.builds(
    lambda name, level, seed: FAMILIES[name].sample(
        random.Random(seed), FAMILIES[name].levels[level % len(FAMILIES[name].levels)]
    ),
    st.sampled_from(sorted(FAMILIES)),
    st.integers(0, 8),
    st.integers(0, 1_000),
)


def _has_words(text: str) -> bool:
    """The generator also tries texts that stand in the source; a finding's own words are one."""
    return re.search(r"[a-z]{3,}\W+[a-z]{3,}", text.casefold()) is not None


@settings(max_examples=400, deadline=None)
@given(sample=questions, text=st.text(max_size=300).filter(lambda text: not _has_words(text)))
def test_any_text_is_checked(sample: Any, text: str) -> None:
    family = FAMILIES[sample.facts["family"]]
    assert family.check(sample.facts, text).status != T
    check = check_trace(family, sample.facts, text)
    assert not check.is_true
    assert check.step_score == check.coverage == 0
    in_steps = check_trace(
        family, sample.facts, f"Step 1: {text}\nStep 2: {text}\nConclusion: {text}"
    )
    assert not in_steps.is_sound


@pytest.mark.parametrize(
    "text",
    [
        "Ohio, " * 5_000,
        "plaintiffs: " + "Ohio, " * 5_000,
        "plaintiffs: " + "Ohio and " * 5_000 + "!",
        "$1 + " * 5_000,
        "$1 + " * 5_000 + "$1 = $2, more than",
        "trespass, " * 5_000 + "are not excepted",
        "March 3, 2014 " * 2_000,
        "so " * 10_000,
        "at lunch so " * 5_000,
        "not " * 10_000,
        "first, " * 10_000,
        " " * 50_000,
        "9" * 20_000,
        "$" + "9" * 5_000 + ", more than $75,000",
        "March 3, " + "9" * 5_000,
    ],
    ids=lambda text: text[:20],
)
def test_endless_text_is_checked_at_once(text: str) -> None:
    start = time.perf_counter()
    for name, family in FAMILIES.items():
        facts = family.sample(random.Random(1), family.levels[-1]).facts
        assert family.check(facts, text).status != T, name
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize("name", FAMILIES)
def test_facts_that_are_none_are_one_sentence_of_error(name: str) -> None:
    family = FAMILIES[name]
    facts = dict(family.sample(random.Random(2), family.levels[-1]).facts)
    deciding = {"claim", "plaintiffs", "claims", "told", "asked", "defendants"} & facts.keys()
    broken: list[dict[str, Any]] = [{}]
    for key in sorted(deciding):
        broken += [{k: v for k, v in facts.items() if k != key}]
        broken += [
            {**facts, key: wrong} for wrong in (None, 7, "x", [7], {"x": 1}, [["x", "y", "z"]])
        ]
    if "told" in facts:
        asked, element, _ = facts["told"][0]
        told = ["Conceded", "conceded.", "", True, ["conceded"], "duty is conceded"]
        if name in ("personal_jurisdiction", "issue_spotting"):  # a home, a tort: never conceded
            told.append("conceded")
            element = "at_home" if name == "personal_jurisdiction" else element
        if name != "adverse_possession":
            told.append(None)  # nor is word ever missing
        broken += [{**facts, "told": [[asked, element, fact]]} for fact in told]
        broken += [{**facts, "told": [[asked, "mood", fact]]} for fact in ("conceded", None)]
    for wrong in broken:
        if wrong.get("asked") is not facts.get("asked") and "asked" in wrong:
            continue  # any name may be asked about
        for ask in (family.solve, family.trace, family.required):
            with pytest.raises(DataError, match=f"{name} question|A suit needs") as caught:
                ask(wrong)
            assert "\n" not in str(caught.value)
        with pytest.raises(DataError):
            family.check(wrong, "at lunch, so out of court.")
