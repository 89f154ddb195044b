"""What grading a completion of about 200 tokens costs, for each answer type.

    .venv/bin/python benchmarks/grading.py            the table, in µs a completion
    .venv/bin/python benchmarks/grading.py --json FILE

A completion has about 150 words (0.75 words a token): in steps with a conclusion, or bare, so that
all of it is read as the answer. Each is graded once and none is like another, so that no cache
helps but that of the references, as in training. A figure is the median over `ROUNDS` of the CPU
time of a round divided by its completions: CPU time, since other programs may run. The script fails
above `LIMIT`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

from judicaita.legal.answers import grade_answer

LIMIT = 200.0
"""Microseconds a completion."""
ROUNDS, COMPLETIONS = 9, 200

STEPS = (
    "Step 1: The statement was made out of court by the witness, who told the officer at the scene "
    "in case {n} that the light was red when the defendant entered it.\n"
    "Step 2: It is offered to prove that the light was in fact red on {n} May, so it is offered "
    "for the truth of the matter asserted, and not merely for its effect on the listener.\n"
    "Step 3: No exclusion applies, since the declarant is not a party opponent, and the statement "
    "was neither adopted nor authorised by one; the report names section {n} only.\n"
    "Step 4: No exception applies either: it was told {n} days later, calmly, at the station, and "
    "was not made for medical diagnosis or in a record of a regularly conducted business.\n"
)
LONG = (
    "The statement is hearsay because it was made out of court, is offered for its truth, and "
    "falls within no exception or exclusion of the Rules."
)
TORTS = ("battery", "trespass", "negligence", "none")
CASES = {
    "yes_no": ("Yes, because it is offered for its truth.", "Yes", ("Yes", "No")),
    "multiclass": ("The mark is descriptive.", "descriptive", ("generic", "descriptive", "other")),
    "multilabel": ("Battery and trespass.", "battery, trespass", TORTS),
    "numeric": ("15% of $36,900 is $5,535, so the tax is $5,535.", "$5,535", ()),
    "date": ("The period ended on the 2d day of March, 1999.", "March 2, 1999", ()),
    "extraction": ("The term is “land”.", "land", ()),
    "extraction_list": (
        "Ruth C. May and Donna E. Ledgerwood",
        "Ruth C May, Donna E Ledgerwood",
        (),
    ),
    "free_text_short": ("Phillips v. AWH Corp.", "Phillips v. AWH Corp.", ()),
    "free_text": (f"{LONG} It was told {{n}} days after the event.", LONG, ()),
}


def microseconds(texts: list[list[str]], reference: str, **options: object) -> float:
    """Median CPU time a completion."""
    figures = []
    for batch in texts:
        start = time.process_time()
        for text in batch:
            grade_answer(text, reference, **options)  # type: ignore[arg-type]
        figures.append((time.process_time() - start) / len(batch) * 1e6)
    return statistics.median(figures)


def measure(rounds: int = ROUNDS, completions: int = COMPLETIONS) -> dict[str, dict[str, float]]:
    """Answer type → form of the completion → µs."""
    table: dict[str, dict[str, float]] = {}
    number = 0
    for answer_type, (conclusion, reference, labels) in CASES.items():
        table[answer_type] = {}
        for form, text in (
            ("steps", f"{STEPS}Conclusion: {conclusion}"),
            ("bare", f"{STEPS.replace('Step', 'Point')}{conclusion}"),
        ):
            batches = []
            for _ in range(rounds + 1):  # the first one fills the dictionaries of words
                batches.append([text.replace("{n}", str(number + n)) for n in range(completions)])
                number += completions
            options = {"labels": labels, "answer_type": answer_type}
            microseconds(batches[:1], reference, **options)
            table[answer_type][form] = microseconds(batches[1:], reference, **options)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="also write the figures here")
    target = parser.parse_args().json
    table = measure()
    print(f"{'answer type':18}{'steps':>8}{'bare':>8}")
    for answer_type, figures in table.items():
        print(f"{answer_type:18}{figures['steps']:8.0f}{figures['bare']:8.0f}")
    if target:
        target.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    worst = max(figure for figures in table.values() for figure in figures.values())
    if worst > LIMIT:
        raise SystemExit(f"{worst:.0f} µs a completion; the limit is {LIMIT:.0f}")


if __name__ == "__main__":
    main()
