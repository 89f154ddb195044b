"""Every answer derived a second time, from the words of the question and the law alone.

Nothing here uses a family's parser, facts, solver or elements: tables and regular expressions of
its own read the prompt, and calendar arithmetic is done by hand.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from judicaita.legal.tasks import FAMILIES

INSTANCES = 10_000
"""Per family, spread over its levels."""


def told_of(prompt: str, who: str) -> str:
    """The sentences that name a person, without the question."""
    sentences = re.findall(r"[^.?]+\.", prompt)
    return " ".join(sentence for sentence in sentences if re.search(rf"\b{who}\b", sentence))


def asked(prompt: str, question: str) -> str:
    found = re.search(question, prompt)
    assert found, prompt
    return found[1]


def conceded(own: str, noun: str) -> bool:
    """Whether the other side concedes something of the person whose sentences these are."""
    return re.search(rf"'s {noun} is conceded\.", own) is not None


def all_but(question: str, *defeats: str) -> Callable[[str], str]:
    """Yes unless one of some phrases is told of the person asked about.

    What is conceded, or neither told nor disputed, defeats nothing.
    """
    pattern = re.compile("|".join(defeats))

    def derive(prompt: str) -> str:
        return "No" if pattern.search(told_of(prompt, asked(prompt, question))) else "Yes"

    return derive


hearsay = all_but(
    r"Does the hearsay rule bar (\w+)'s words\?$",
    "on the stand|at this trial",  # said while testifying: 801(c)(1)
    "to show notice|to reveal fear",  # not for its truth: 801(c)(2)
    "is (?:the other side|the rival's agent)",  # 801(d)(2)
    "in sudden fright",  # 803(2)
    "to get treated",  # 803(4)
)
negligence = all_but(
    r"Is (\w+) liable in negligence\?$",
    "witness|stranger",  # no duty to rescue: § 314
    "every care|all the rules",  # no breach
    "from (?:a storm|old illness)",  # no cause
    "unhurt|lost nothing",  # no harm
)
non_compete = all_but(
    r"Is (\w+)'s covenant enforceable\?$",
    "for nothing|mere threats",  # nothing to be ancillary to
    "thirty years|for life",
    "the world|every state",
    "any work|of any kind",
)
ucc_firm_offer = all_but(
    r"Must (\w+) keep the offer open\?$",
    "house|legal advice",  # no goods: § 2-105(1)
    "nurse|student",  # no merchant: § 2-104(1)
    "spoken|unsigned",  # no signed writing: § 2-205
    "five months|a year",  # more than three months: § 2-205
)


def personal_jurisdiction(prompt: str) -> str:
    own = told_of(prompt, asked(prompt, r"Can this state's courts hear (\w+)\?$"))
    at_home = "lives in this state" in own
    lacking = re.search("never came|crash far away|ruinous", own)
    # Where contacts, relation and fairness are not told, they are undisputed.
    return "Yes" if at_home or not lacking else "No"


def contract_notice(prompt: str) -> str:
    own = told_of(prompt, asked(prompt, r"Did (\w+) end the lease\?$"))
    days = re.search(r"gave (\d+) days of (\d+)", own)
    if days and int(days[1]) - int(days[2]) < 0:
        return "No"
    if re.search(r"sent a \w+ for|sent an \w+ for", own):  # another form than the one agreed
        return "No"
    if re.search("acted as (?:a mere friend|a subtenant)", own):  # no party, nor for one
        return "No"
    return "No" if re.search("wrote to (?:a bank|an old address)", own) else "Yes"


TORTS = {
    "battery": "punched Kim|kicked Kim|spat on Kim|slapped Kim",
    "conversion": "sold Kim's|burned Kim's|kept Kim's|pawned Kim's",
    "defamation": "thief in print|told all|posted lies|broadcast lies",
    "negligence": "careless|dropped a brick|left oil|let a dog",
    "trespass": "crossed Kim's|climbed Kim's|camped on|dug in",
}


def issue_spotting(prompt: str) -> str:
    own = told_of(prompt, asked(prompt, r"Which torts did (\w+) commit\?$"))
    return ", ".join(tort for tort, words in TORTS.items() if re.search(words, own)) or "none"


def adverse_possession(prompt: str) -> str:
    own = told_of(prompt, asked(prompt, r"Does (\w+) own the land\?$"))
    years = re.search(r"stayed for (\d+) years", own)
    defeated = [
        "stayed for a decade" in own or (years is not None and int(years[1]) < 20),
        re.search("in secret|by night", own),
        re.search("on a lease|with leave", own),
        re.search("beside the owner|with the public", own),
    ]
    if any(defeated):
        return "No"
    points = {"stayed": "stay", "farmed": "farming", "came": "coming", "held": "holding"}
    silent = [
        noun
        for verb, noun in points.items()
        if not re.search(rf"\b{verb}\b", own) and not conceded(own, noun)
    ]
    if "Nothing else is disputed." in prompt:
        silent = [noun for noun in silent if re.search(rf"no word on \w+'s {noun}\.", own)]
    return "Insufficient facts" if silent else "Yes"


STATE = r"[A-Z][a-z]+(?: [A-Z][a-z]+)?"
EXCEPTED = re.compile(
    "divorce|alimony|child custody|(?:probate|annulment) of a will|administration"
)


def diversity(prompt: str) -> str:
    sentences = re.findall(r"[^.?]+[.?]", prompt)
    home = {
        m[1]: m[2] for s in sentences if (m := re.fullmatch(rf"\s*(\w+) is from ({STATE})\.", s))
    }
    suits = [s for s in sentences if re.search(r"\bsues?\b.*\$", s)]
    bound = re.search(r"over (\w+)'s suit\?$", prompt)
    if bound:
        suits = [suit for suit in suits if re.search(rf"\b{bound[1]}\b", suit)]
    left = {name for suit in suits for name in re.split(r"(?:both )?sues?\b", suit)[0].split()} - {
        "and"
    }
    right = {
        name
        for suit in suits
        for name in re.split(r" for ", re.split(r"sues?\b", suit)[1])[0].split()
    } - {"and", "each"}
    crossed = {home[name] for name in left} & {home[name] for name in right}
    thousands = [sum(map(amount, re.findall(r"\$([\d,]+)", suit))) for suit in suits]
    is_met = min(thousands) >= 76  # the amounts are whole thousands
    return "Yes" if is_met and not crossed and not any(map(EXCEPTED.search, suits)) else "No"


def amount(text: str) -> int:
    whole, zeros = text.rsplit(",", 1)
    assert zeros == "000"
    return int(whole.replace(",", ""))


LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
MONTHS = "January February March April May June July August September October November December"

Day = tuple[int, int, int]
"""Year, month, day: tuples compare as dates do."""


def read_day(text: str) -> Day:
    month, day, year = text.replace(",", "").split()
    return int(year), MONTHS.split().index(month) + 1, int(day)


def next_day(day: Day) -> Day:
    year, month, number = day
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    length = LENGTHS[month - 1] + (leap and month == 2)
    if number < length:
        return year, month, number + 1
    return (year, month + 1, 1) if month < 12 else (year + 1, 1, 1)


def later(day: Day, days: int) -> Day:
    for _ in range(days):
        day = next_day(day)
    return day


def weekday(day: Day) -> int:
    """Sakamoto's method; 0 is Sunday."""
    year, month, number = day
    year -= month < 3
    shift = (0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4)[month - 1]
    return (year + year // 4 - year // 100 + year // 400 + shift + number) % 7


def statute_of_limitations(prompt: str) -> str:
    own = told_of(prompt, asked(prompt, r"Is (\w+)'s suit in time\?$"))
    date = rf"((?:{MONTHS.replace(' ', '|')}) \d+, \d+)"
    hurt, sued = map(read_day, re.search(rf"hurt on {date} and sued on \w+, {date}", own).groups())
    start, days = hurt, 0
    if birth := re.search(rf"born on {date}", own):
        year, month, number = read_day(birth[1])
        start = max(hurt, (year + 18, month, number))  # time does not run against a minor
    if away := re.search(r"(\d+) days after", own):
        days = int(away[1])
    last = later((start[0] + 2, *start[1:]), days)
    while weekday(last) in (0, 6):
        last = next_day(last)
    return "Yes" if sued <= last else "No"


DERIVATIONS = {
    "adverse_possession": adverse_possession,
    "contract_notice": contract_notice,
    "diversity": diversity,
    "hearsay": hearsay,
    "issue_spotting": issue_spotting,
    "negligence": negligence,
    "non_compete": non_compete,
    "personal_jurisdiction": personal_jurisdiction,
    "statute_of_limitations": statute_of_limitations,
    "ucc_firm_offer": ucc_firm_offer,
}


@pytest.mark.parametrize("name", FAMILIES)
def test_solvers_agree_with_a_second_derivation(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(f"second derivation of {name}")
    each = -(-INSTANCES // len(family.levels))
    for level in family.levels:
        for _ in range(each):
            sample = family.sample(rng, level)
            prompt = str(sample.prompt)
            assert DERIVATIONS[name](prompt) == sample.reference, prompt


NOUNS = {
    "adverse_possession": ("stay", "farming", "coming", "holding"),
    "contract_notice": ("timing", "form", "role", "address"),
    "hearsay": ("setting", "purpose", "neutrality", "calm"),
    "negligence": ("duty", "fault", "causation", "damage"),
    "non_compete": ("bargain", "term", "area", "scope"),
    "personal_jurisdiction": (None, "contact", "relation", "fairness"),  # no one concedes a home
    "ucc_firm_offer": ("cargo", "trade", "signature", "timing"),
}
"""What each fact of a fourth-level question, in its order, is called where it is conceded."""


@pytest.mark.parametrize("name", NOUNS)
def test_conceding_any_point_agrees_with_the_second_derivation(name: str) -> None:
    """A fact that meets its element or does not, or the lack of one, gives way to a concession."""
    family, rng = FAMILIES[name], random.Random(f"concessions of {name}")
    changed = 0
    for _ in range(300):
        sample = family.sample(rng, 4)
        sentences = re.findall(r"[^.?]+[.?]", str(sample.prompt))
        place = rng.randrange(4)
        noun, who = NOUNS[name][place], sample.facts["asked"]
        if noun is None:
            continue
        sentences[place] = f" {who}'s {noun} is conceded."
        prompt = "".join(sentences).strip()
        answer = family.solve(family.parse(prompt))
        assert answer == DERIVATIONS[name](prompt), prompt
        changed += answer != sample.reference
    assert changed >= 10


def test_the_draws_have_concessions_and_missing_facts() -> None:
    """So that the agreement above is about them, too."""
    found: dict[str, set[str]] = {"conceded": set(), "no word": set()}
    for name in NOUNS:
        rng = random.Random(f"second derivation of {name}")
        for _ in range(400):
            prompt = str(FAMILIES[name].sample(rng, 2).prompt)
            found["conceded"] |= {name} if " is conceded." in prompt else set()
            found["no word"] |= {name} if "no word on" in prompt else set()
    assert found["conceded"] == set(NOUNS)
    assert found["no word"] == {"adverse_possession"}


@pytest.mark.parametrize(
    ("day", "number"),
    [((2000, 1, 1), 6), ((2012, 2, 29), 3), ((2013, 12, 3), 2), ((2021, 7, 12), 1)],
)
def test_the_calendar_used_here(day: Day, number: int) -> None:
    assert weekday(day) == number
    assert later((2012, 2, 28), 2) == (2012, 3, 1)
    assert later((2013, 12, 31), 1) == (2014, 1, 1)
