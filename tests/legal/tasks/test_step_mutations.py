"""The step checker on damaged worked solutions, each labelled by the way it was damaged."""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from judicaita.legal.answers import parse_reasoning
from judicaita.legal.tasks import FAMILIES, TaskFamily, TraceCheck, check_trace
from judicaita.legal.tasks.element import CONCEDED
from judicaita.legal.tasks.elements import ElementFamily
from judicaita.legal.tasks.vocabulary import NAMES, STATES
from judicaita.types import Sample

T, F, N = "true", "false", "not checkable"
EACH = 6
"""Worked solutions damaged per family and level, in every way that applies."""


@dataclass(frozen=True)
class Damage:
    """One step of a worked solution, replaced."""

    how: str
    place: int
    step: str
    label: str


def steps_of(sample: Sample) -> list[str]:
    return [step.text for step in parse_reasoning(sample.trace).steps]


def flip(text: str, one: str, other: str) -> str:
    """The text with ``one`` in place of ``other``, or the other way round."""
    if one in text:
        return text.replace(one, other.strip())
    assert other in text
    return text.replace(other.strip(), one)


def join(steps: list[str], conclusion: str) -> str:
    lines = [f"Step {number}: {step}" for number, step in enumerate(steps, start=1)]
    return "\n".join([*lines, f"Conclusion: {conclusion}"])


# ── every family ─────────────────────────────────────────────────────────────────────────────────


def any_family(sample: Sample, rng: random.Random) -> Iterator[Damage]:
    steps = steps_of(sample)
    place = rng.randrange(len(steps))
    step, bare = steps[place], steps[place].rstrip(".")
    sentences = re.findall(r"[^.?]+[.?]", str(sample.prompt))
    told = [s.strip() for s in sentences if s.strip() not in steps]
    other = rng.choice([name for name in NAMES if name not in str(sample.prompt)])
    yield Damage("capitals", place, step.upper(), T)
    yield Damage("bold", place, f"**{bare}**.", T)
    yield Damage("italics", place, f"_{bare}_", T)
    yield Damage("lead", place, f"First, {bare}", T)
    yield Damage("dots", place, f"{bare}!", T)
    if " so " in step:
        for connector in ("therefore", "thus", "hence", "which means that", "and so"):
            yield Damage(connector, place, step.replace(" so ", f" {connector} "), T)
        evidence, finding = bare.split(", so ")
        for reason in ("because", "since", "given that"):
            yield Damage(reason, place, f"{finding} {reason} {evidence}.", T)
    yield Damage("empty", place, "", N)
    yield Damage("dashes", place, "---", N)
    yield Damage("tautology", place, "it is what it is.", N)
    yield Damage("self", place, f"{bare} is {bare}.", N)
    yield Damage("copied sentence", place, rng.choice(told[:-1]), N)
    yield Damage("copied question", place, told[-1], N)
    yield Damage("half the prompt", place, " ".join(told[:2]), N)
    for clause in (" and the sky is blue.", ". The sky is blue.", ", as all agree.", ", maybe."):
        yield Damage("added clause", place, bare + clause, N)
    yield Damage("doubled", place, f"{bare}. {step}", N)
    yield Damage("chained", place, f"{bare}, so {bare}.", N)
    yield Damage("hedged", place, f"perhaps {bare}.", N)
    yield Damage("doubted", place, f"it is false that {bare}.", N)
    yield Damage("if", place, f"if {bare}.", N)
    yield Damage("never", place, f"never {bare}.", N)
    yield Damage("nobody", place, f"nobody {bare}.", N)
    yield Damage("asked back", place, f"{bare}?", N)
    yield Damage("another person", place, f"{other} says {bare}.", N)
    yield Damage("of another person", place, f"{other}: {bare}.", N)
    yield Damage("the answer", place, f"The answer is {sample.reference}.", N)


# ── elements ─────────────────────────────────────────────────────────────────────────────────────


def elements(sample: Sample, rng: random.Random) -> Iterator[Damage]:
    family = FAMILIES[str(sample.facts["family"])]
    assert isinstance(family, ElementFamily)
    steps = steps_of(sample)
    required = family.required(sample.facts)
    by_name = {element.name: element for element in family.elements}
    asked = sample.facts["asked"]
    own = {name: fact for who, name, fact in sample.facts["told"] if who == asked}
    for place, (step, name) in enumerate(zip(steps, required, strict=True)):
        evidence, finding = step.rstrip(".").split(", so ")
        flipped = finding.removeprefix("not ") if finding.startswith("not ") else f"not {finding}"
        is_open = finding.endswith(" is open")
        if not is_open:
            yield Damage("negated", place, f"{evidence}, so {flipped}.", F)
            yield Damage("negated alone", place, f"it is {flipped}.", F)
            element = by_name[name]
            met = element.holds(own[name])
            opposite = (element.unmet if met else element.met)[0]
            yield Damage("flipped finding", place, f"{evidence}, so {opposite}.", F)
            wrong = element.draw(rng)
            if wrong != own[name]:
                yield Damage("other fact", place, f"{wrong}, so {finding}.", F)
                yield Damage("other fact, because", place, f"{finding} because {wrong}.", F)
                right = (element.met if element.is_met(wrong) else element.unmet)[0]
                yield Damage("other fact, right finding", place, f"{wrong}, so {right}.", F)
            yield Damage("evidence alone", place, f"{evidence}.", N)
            yield Damage("finding alone", place, f"{finding}.", T)
            yield Damage("of another", place, f"the neighbour {evidence}, so {finding}.", N)
            yield Damage("of the claim", place, f"the claim was {evidence}, so {finding}.", N)
            if "{who}'s" in element.sentence:  # it is the victim who broke an arm
                yield Damage("of the person", place, f"{asked} {evidence}, so {finding}.", N)
                yield Damage("of her", place, f"{finding} because she was {evidence}.", N)
        else:
            invented = by_name[name].draw(rng)
            said = (by_name[name].met if by_name[name].is_met(invented) else by_name[name].unmet)[0]
            yield Damage("invented fact", place, f"{invented}, so {said}.", F)
            yield Damage("invented finding", place, f"{said}.", F)
        if len(steps) > 1:
            following = steps[(place + 1) % len(steps)].rstrip(".").split(", so ")[1]
            yield Damage("another's finding", place, f"{evidence}, so {following}.", F)
        element = rng.choice(family.elements)
        if element.noun and own.get(element.name) != CONCEDED:
            conceded, said = f"{element.noun} is conceded", element.met[0]
            yield Damage("not conceded", place, f"{conceded}, so {said}.", F)
            yield Damage("not conceded, told", place, f"{asked}'s {conceded}, so {said}.", F)
            yield Damage("not conceded, because", place, f"{said} because {conceded}.", F)
        if own.get(name) == CONCEDED:
            noun, said = by_name[name].noun, by_name[name].met[0]
            yield Damage("conceded as told", place, f"{asked}'s {noun} is conceded, so {said}.", T)
            yield Damage("no word", place, f"no word on {noun}, so {noun} is open.", F)
            yield Damage("of another conceded", place, f"Kim's {noun} is conceded, so {said}.", N)
            yield Damage("denied", place, f"{noun} is not conceded, so {said}.", N)
            for element in family.elements:
                if element.name != name:
                    yield Damage("another's", place, f"{noun} is conceded, so {element.met[0]}.", F)
    for who, name, fact in sample.facts["told"]:
        if who != asked and fact is not None and own.get(name) != fact:
            element = by_name[name]
            said = (element.met if element.is_met(fact) else element.unmet)[0]
            yield Damage("the other party's fact", 0, f"{fact}, so {said}.", F)
            yield Damage("of the other party", 0, f"{element.tell(who, fact)[:-1]}, so {said}.", N)


# ── diversity ────────────────────────────────────────────────────────────────────────────────────


def diversity(sample: Sample, rng: random.Random) -> Iterator[Damage]:
    steps = steps_of(sample)
    states = {
        party["state"] for side in ("plaintiffs", "defendants") for party in sample.facts[side]
    }
    new = rng.choice([state for state in STATES if state not in states])
    for place, step in enumerate(steps):
        bare = step.rstrip(".")
        if step.startswith(("Plaintiffs", "Defendants")):
            side, listed = bare.split(": ")
            first, *rest = listed.split(", ")
            yield Damage("other state", place, f"{side}: {', '.join([new, *rest])}.", F)
            yield Damage("added state", place, f"{bare}, {new}.", F)
            if rest and rest != [first]:
                yield Damage("left out", place, f"{side}: {first}.", F)
            yield Damage(
                "said", place, f"The {side.lower()} are from {' and '.join([first, *rest])}.", T
            )
        elif " both sides" in step:
            evidence, finding = bare.split(", so ")
            opposite = (
                finding.replace("is not", "is") if "not" in finding else "diversity is not complete"
            )
            yield Damage("flipped finding", place, f"{evidence}, so {opposite}.", F)
            yield Damage("flipped finding alone", place, f"{opposite}.", F)
            yield Damage("other shared state", place, f"{new} is on both sides, so {finding}.", F)
            yield Damage("finding alone", place, f"{finding}.", T)
            if evidence.startswith("No state"):
                yield Damage("a state", place, bare.replace("No state", min(states)) + ".", F)
            else:
                yield Damage("no state", place, f"No state is on both sides, so {finding}.", F)
        elif "$" in step:
            numbers = [int(n.replace(",", "")) for n in re.findall(r"\$([\d,]+)", step)]
            opposite = (
                bare.replace("not more", "more")
                if "not more" in bare
                else bare.replace("more", "not more")
            )
            yield Damage("flipped comparison", place, f"{opposite}.", F)
            wrong = f"${numbers[0] + 1_000:,}"
            yield Damage("other amount", place, step.replace(f"${numbers[0]:,}", wrong, 1), F)
            yield Damage("no comparison", place, step.split(", ")[0], N)
            if "=" in step:
                yield Damage(
                    "wrong sum",
                    place,
                    step.replace(f"= ${numbers[-2]:,}", f"= ${numbers[-2] + 1_000:,}"),
                    F,
                )
                yield Damage("one claim", place, f"${numbers[0]:,}, {bare.split(', ')[-1]}.", F)
        else:
            neither = "not " if "not " in step else ""
            yield Damage("flipped", place, flip(step, "not excepted", " excepted"), F)
            yield Damage("no such cause", place, f"Piracy is {neither}excepted.", N)
            causes = str(sample.facts["claims"])
            untold = "Divorce" if "custody" in causes else "Child custody"
            yield Damage("untold cause", place, f"{untold} is {neither}excepted.", F)
    other = sample.facts.get("other")
    if other:
        amount = other["claims"][0]["amount"]
        more = "more than" if amount > 75_000 else "not more than"
        homes = [party["state"] for party in other["plaintiffs"]]
        own = [party["state"] for party in sample.facts["plaintiffs"]]
        if amount != sample.facts["claims"][0]["amount"]:
            yield Damage("the other suit's amount", 3, f"${amount:,}, {more} $75,000.", F)
        if sorted(homes) != sorted(own):
            yield Damage("the other suit's states", 0, f"Plaintiffs: {', '.join(homes)}.", F)
        who = other["plaintiffs"][0]["name"]
        yield Damage("of the other suit", 0, f"In {who}'s suit, plaintiffs: {', '.join(homes)}.", N)
        yield Damage(
            "against the other",
            3,
            f"Against {other['defendants'][0]['name']}: {steps_of(sample)[3]}",
            N,
        )


# ── limitation ───────────────────────────────────────────────────────────────────────────────────

DAY = re.compile(r"([A-Z][a-z]+) (\d{1,2}), (\d{4})")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def limitation(sample: Sample, rng: random.Random) -> Iterator[Damage]:
    for place, step in enumerate(steps_of(sample)):
        bare = step.rstrip(".")
        for match in DAY.finditer(step):
            month, day, year = match.groups()
            moved = 28 if int(day) > 14 and day != "28" else 2 if day != "2" else 3
            for wrong in (f"{month} {moved}, {year}", f"{month} {day}, {int(year) + 1}"):
                changed = step[: match.start()] + wrong + step[match.end() :]
                yield Damage("other date", place, changed, F)
            yield Damage("no date", place, step.replace(match[0], "February 31, 2014"), F)
        if ", so " in step:
            evidence, finding = bare.split(", so ")
            yield Damage("evidence alone", place, f"{evidence}.", N)
            flipped = {
                "no minor": "the time ends on June 1, 2016",
                "no time is added": "the time ends on June 1, 2016",
                "it stands": "the last day is June 1, 2030",
            }.get(finding)
            if flipped is None:
                flipped = "it stands" if "last day" in finding else "no tolling"
            yield Damage("flipped finding", place, f"{evidence}, so {flipped}.", F)
        if " after " in step and "injury" not in step:
            flipped = (
                bare.replace("is not after", "is after")
                if "not" in bare
                else bare.replace("is after", "is not after")
            )
            yield Damage("flipped comparison", place, f"{flipped}.", F)
        for day_of_week in DAYS:
            if f"is a {day_of_week}" in step:
                wrong = DAYS[(DAYS.index(day_of_week) + 1) % 7]
                yield Damage("other weekday", place, step.replace(day_of_week, wrong), F)
        if "days away" in step:
            number = re.findall(r"\d+", step)[0]
            yield Damage("other number", place, step.replace(number, str(int(number) + 1), 1), F)
            when = (
                ("before the", "after the") if "before the" in step else ("after the", "before the")
            )
            yield Damage("other time", place, step.replace(*when), F)
    other = sample.facts["other_claim"]
    if other:
        yield Damage("of the other person", 0, f"{other['who']}: {steps_of(sample)[0]}", N)
        theirs = FAMILIES["statute_of_limitations"].trace({**sample.facts, "claim": other})
        first = parse_reasoning(theirs).steps[0].text
        if first != steps_of(sample)[0]:
            yield Damage("the other person's date", 0, first, F)


SPECIAL: dict[str, Callable[[Sample, random.Random], Iterator[Damage]]] = {
    "diversity": diversity,
    "statute_of_limitations": limitation,
}


def conceding(name: str) -> list[Sample]:
    """Instances of the easy levels in which something is conceded; none where nothing ever is."""
    family, rng = FAMILIES[name], random.Random(f"conceding {name}")
    if not isinstance(family, ElementFamily) or not family.can_concede:
        return []
    draws = (family.sample(rng, level) for level in itertools.cycle(family.easy_levels))
    fitting = (s for s in draws if any(fact == CONCEDED for _, _, fact in s.facts["told"]))
    return list(itertools.islice(fitting, EACH))


def damages(name: str) -> Iterator[tuple[Sample, Damage]]:
    family, rng = FAMILIES[name], random.Random(f"damage {name}")
    for level in family.levels:
        samples = [family.sample(rng, level) for _ in range(EACH)]
        for sample in samples + (conceding(name) if level == family.easy_levels[-1] else []):
            for source in (any_family, SPECIAL.get(name, elements)):
                for damage in source(sample, rng):
                    yield sample, damage


def judged(family: TaskFamily, sample: Sample, damage: Damage) -> TraceCheck:
    steps = steps_of(sample)
    steps[damage.place] = damage.step
    return check_trace(family, sample.facts, join(steps, sample.reference))


@pytest.mark.parametrize("name", FAMILIES)
def test_damaged_steps_are_judged_by_their_damage(name: str) -> None:
    family, agreed, wrong = FAMILIES[name], 0, []
    called_true = []
    kinds: Counter[str] = Counter()
    for sample, damage in damages(name):
        check = judged(family, sample, damage)
        verdict = check.verdicts[damage.place]
        kinds[damage.label] += 1
        agreed += verdict.status == damage.label
        if verdict.status != damage.label:
            wrong.append((damage, verdict, sample.prompt))
        if verdict.status == T != damage.label:
            called_true.append((damage, sample.prompt))
        assert check.is_sound == (verdict.status == T), damage
    assert not called_true
    assert kinds.total() >= 500
    assert min(kinds.values()) >= 100
    assert agreed / kinds.total() >= 0.99, Counter(damage.how for damage, _, _ in wrong)


@pytest.mark.parametrize("name", FAMILIES)
def test_no_word_that_turns_a_step_leaves_it_true(name: str) -> None:
    """Entered anywhere."""
    family, rng = FAMILIES[name], random.Random(f"words {name}")
    drawn = [family.sample(rng, level) for level in family.levels for _ in range(2)]
    for sample in drawn + conceding(name)[:2]:
        for step in steps_of(sample):
            words = step.split()
            for place in range(len(words) + 1):
                for word in TURNING:
                    turned = " ".join([*words[:place], word, *words[place:]])
                    assert family.check(sample.facts, turned).status != T, turned


@pytest.mark.parametrize("name", [name for name in FAMILIES if conceding(name)])
def test_solutions_with_a_concession(name: str) -> None:
    """A conceded element is a point to decide: told, in its place, counted, and no fact."""
    family = FAMILIES[name]
    for sample in conceding(name):
        told = [(element, fact) for _, element, fact in sample.facts["told"]]
        given_up = [element for element, fact in told if fact == CONCEDED]
        assert family.required(sample.facts) == tuple(element for element, _ in told)
        assert all(sample.facts[element] is True for element in given_up)
        assert str(sample.prompt).count(" is conceded.") == len(given_up)
        assert sample.trace.count(" is conceded, so ") == len(given_up)
        assert family.parse(str(sample.prompt)) == sample.facts
        kept = [item for item in sample.facts["told"] if item[2] != CONCEDED]
        # Undisputed or conceded: the answer is the same, the points to decide are fewer.
        passed_over = {**sample.facts, "told": kept}
        assert family.solve(passed_over) == sample.reference
        assert len(family.required(passed_over)) == len(told) - len(given_up)
        fewer = [step for step in steps_of(sample) if "is conceded" not in step]
        check = check_trace(family, sample.facts, join(fewer, sample.reference))
        assert check.is_true
        assert not check.is_sound
        assert check.coverage == pytest.approx(len(kept) / len(told))


TURNING = (
    *("not", "never", "no", "nobody", "none", "neither", "hardly", "almost", "barely", "without"),
    *("if", "unless", "perhaps", "maybe", "possibly", "allegedly", "false", "untrue", "wrongly"),
    *("someone", "everyone", "other", "another", "Kim", "Kim's", "only", "un", "non-", "half"),
    *("1", "$5", "or", "but", "except"),
)


@pytest.mark.parametrize("name", FAMILIES)
def test_left_out_and_repeated_steps(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(f"whole {name}")
    for level in family.levels:
        for _ in range(EACH):
            sample = family.sample(rng, level)
            steps = steps_of(sample)
            place = rng.randrange(len(steps))
            fewer = steps[:place] + steps[place + 1 :]
            check = check_trace(family, sample.facts, join(fewer, sample.reference))
            assert check.is_true == bool(fewer)
            assert not check.is_sound
            assert check.coverage == pytest.approx(len(fewer) / len(steps))
            assert check.step_score == pytest.approx(len(fewer) / len(steps))

            again = [*steps, steps[place].upper()]
            check = check_trace(family, sample.facts, join(again, sample.reference))
            assert [v.status for v in check.verdicts] == [T] * len(steps) + [N]
            assert not check.is_true
            assert not check.is_sound
            assert check.coverage == 1
            assert check.step_score == pytest.approx(len(steps) / (len(steps) + 1))

            shuffled = rng.sample(steps, len(steps))
            assert check_trace(family, sample.facts, join(shuffled, sample.reference)).is_sound


@pytest.mark.parametrize("name", FAMILIES)
def test_true_steps_and_another_conclusion(name: str) -> None:
    family, rng = FAMILIES[name], random.Random(f"conclusion {name}")
    for level in family.levels:
        for _ in range(EACH):
            sample = family.sample(rng, level)
            for answer in family.answers:
                check = check_trace(family, sample.facts, join(steps_of(sample), answer))
                assert check.is_true
                assert check.is_sound == check.correct == (answer == sample.reference)
            assert not check_trace(
                family, sample.facts, sample.trace.split("Conclusion")[0]
            ).correct


@pytest.mark.parametrize("name", FAMILIES)
def test_the_other_partys_solution_is_not_sound(name: str) -> None:
    """Worked solutions of other instances of the top level, put to this one."""
    family, rng = FAMILIES[name], random.Random(f"foreign {name}")
    top = family.levels[-1]
    for _ in range(100):
        one, other = family.sample(rng, top), family.sample(rng, top)
        check = check_trace(family, one.facts, other.trace)
        shared = set(steps_of(one)) & set(steps_of(other))
        true = {s for s, v in zip(steps_of(other), check.verdicts, strict=True) if v.status == T}
        assert true <= shared | {s for s in true if sorted(re.findall(r"\w+", s)) in words(one)}


def words(sample: Sample) -> list[list[str]]:
    """The words of each step, in no order: "Ohio, Iowa" says what "Iowa, Ohio" says."""
    return [sorted(re.findall(r"\w+", step)) for step in steps_of(sample)]
