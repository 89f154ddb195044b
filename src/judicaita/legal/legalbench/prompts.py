"""Questions in words of our own, for rows that come without their task's base prompt.

The Hub has LegalBench's rows alone. What a row asks stands here: the question of its task, the
row's own cells under readable names, the options with their letters, and what form the answer takes
(one instruction for each answer type). There are no demonstrations, so that no row stands in
another's prompt. Scores under these prompts and under the base prompts are not the same figure.
"""

from __future__ import annotations

from collections.abc import Mapping

from judicaita.errors import DataError
from judicaita.legal.legalbench.registry import AnswerType, Task

INSTRUCTIONS: Mapping[AnswerType, str] = {
    "binary_yes_no": "Answer {labels}.",
    "binary_other": "Answer with one of these alone: {labels}.",
    "multiclass": "Answer with exactly one of these: {labels}.",
    "multilabel": "Answer with all of these that apply, with commas between them: {labels}.",
    "extraction": "Answer with the term alone, in the words of the text.",
    "extraction_list": 'Answer with the names alone, with commas between them; "Not named" where '
    "the text names none.",
    "numeric": "Answer with the amount alone.",
    "free_text_short": "Answer with the name of the case alone.",
    "free_text": "Answer completely, in as few words as that takes.",
}
"""How each type of answer is asked for; ``{labels}`` are the task's, "A, B or C"."""

_SERIES: Mapping[str, str] = {
    "contract_nli_": "Does this clause of a non-disclosure agreement provide for the following: "
    "{topic}?",
    "cuad_": "Is this contract clause of the following kind: {topic}?",
    "diversity_": "Is there diversity jurisdiction? It takes parties of whom no plaintiff shares a "
    "state with a defendant, and more than $75,000 in controversy.",
    "learned_hands_": "Does this post raise a legal issue of the following kind: {topic}?",
    "maud_": "This is a part of a merger agreement. Which option describes it on this point: "
    "{topic}?",
    "opp115_": "Does this clause of a privacy policy describe the following: {topic}?",
    "supply_chain_disclosure_best_practice_": "Does this statement say whether the company has "
    "this practice against slavery and human trafficking in its supply chain: {topic}?",
    "supply_chain_disclosure_disclosed_": "Does this statement disclose to what extent, if any, "
    "the company does this against slavery and human trafficking in its supply chain: {topic}?",
}
"""The question of tasks that differ in their topic alone."""

_QUESTIONS: Mapping[str, str] = {
    "abercrombie": "How distinctive is this mark for this product, on the scale of Abercrombie?",
    "canada_tax_court_outcomes": "How did the appeal end of which this is the judgment? One that "
    "was allowed in part counts as allowed; what cannot be told is other.",
    "citation_prediction_classification": "Does the citation support the text?",
    "citation_prediction_open": "Which case would a court of this circuit cite for the text?",
    "consumer_contracts_qa": "Answer the question from the contract.",
    "contract_qa": "Answer the question about the clause.",
    "corporate_lobbying": "Could this bill matter to the company's business, so that it might "
    "lobby on it?",
    "definition_classification": "Does this sentence define a term?",
    "definition_extraction": "Which term does this sentence define?",
    "function_of_decision_section": "What does this paragraph do in the decision it is taken from?",
    "hearsay": "Is this evidence hearsay, an out-of-court statement offered to prove what it "
    "asserts?",
    "insurance_policy_interpretation": "Does the policy cover the claim? A is yes, B is no, C is "
    "that it is ambiguous.",
    "international_citizenship_questions": "Answer by the law as it stood on 1 January 2020.",
    "jcrew_blocker": "Is this provision a J.Crew blocker, which keeps a borrower from moving its "
    "intellectual property to subsidiaries out of the lenders' reach?",
    "legal_reasoning_causality": "Does this excerpt of an opinion rely on statistical evidence?",
    "nys_judicial_ethics": "Answer as New York's Advisory Committee on Judicial Ethics would.",
    "oral_argument_question_purpose": "What is the purpose of this judge's question at oral "
    "argument?",
    "overruling": "Does this sentence overrule an earlier case?",
    "personal_jurisdiction": "Does the court of that state have personal jurisdiction over the "
    "defendant? Domicile there suffices, and so do contacts there from which the claim arises.",
    "privacy_policy_entailment": "Is the description of the clause of a privacy policy correct?",
    "privacy_policy_qa": "Is the clause of a privacy policy relevant to the question?",
    "proa": "Does this clause of a statute give private persons a right to sue?",
    "rule_qa": "Answer this question about a rule of law.",
    "sara_entailment": "Does the statement follow from the statute and the facts, or contradict "
    "them?",
    "sara_numeric": "Answer the question from the statute and the facts.",
    "scalr": "Which of these holdings answers the question that was presented to the court?",
    "ssla_company_defendants": "Which companies does this complaint name as defendants?",
    "ssla_individual_defendants": "Which persons does this complaint name as defendants?",
    "ssla_plaintiff": "Whom does this complaint name as plaintiffs?",
    "successor_liability": "On which grounds is the buyer liable for the seller's debts?",
    "telemarketing_sales_rule": "Is this a violation of the Telemarketing Sales Rule, 16 C.F.R. "
    "§ 310.3(a)(1) and (2)?",
    "textualism_tool_dictionaries": "Does this paragraph interpret a statute by a dictionary?",
    "textualism_tool_plain": "Does this paragraph interpret a statute by its plain meaning?",
    "ucc_v_common_law": "Is this contract governed by the UCC, as one for goods is, or by the "
    "common law?",
    "unfair_tos": "Of which kind is this clause of terms of service?",
}

_COLUMNS: Mapping[tuple[str, str], str] = {
    ("sara_entailment", "question"): "Statement",
    **{(name, "description"): "Facts" for name in ("sara_entailment", "sara_numeric")},
    **{("scalr", f"choice_{number}"): f"Choice {number}" for number in range(5)},
    ("successor_liability", "text"): "Facts",
}
"""Columns whose own names would mislead."""

_SPELT_OUT: Mapping[str, str] = {
    "rofr-rofo-rofn": "right of first refusal, first offer or first negotiation",
    "ip": "intellectual property",
    "cor": "change of recommendation",
    "(cor)": "(change of recommendation)",
    "(ftr)": "(fiduciary termination right)",
    "mae": "material adverse effect",
    "(mae)": "(material adverse effect)",
    "fls": "forward-looking statements",
    "rw": "representation",
    "rws": "representations",
    "gaap": "GAAP",
    "non-do": "other than directors' and officers'",
}


def own_prompt(task: Task, row: Mapping[str, str]) -> str:
    """What a row asks, as a prompt without demonstrations.

    >>> from judicaita.legal.legalbench.registry import TASKS
    >>> print(own_prompt(TASKS["hearsay"], {"text": "On whether Ann was ill, that she coughed."}))
    Is this evidence hearsay, an out-of-court statement offered to prove what it asserts?
    <BLANKLINE>
    Text: On whether Ann was ill, that she coughed.
    <BLANKLINE>
    Answer Yes or No.

    `DataError` for a row without a column that the task asks about.
    """
    if missing := [column for column in _columns(task) if column not in row]:
        raise DataError(
            f"{task.name}: a row lacks the column {missing[0]!r}, which its question is about; it "
            f"has {', '.join(row) or 'none'}. Take another revision of the data."
        )
    cells = [f"{_title(task, column)}: {row[column].strip()}" for column in _columns(task)]
    options = [f"{letter}: {meaning}" for letter, meaning in task.options.items()]
    instruction = INSTRUCTIONS[task.answer_type].format(labels=_either(task.labels))
    parts = [question_of(task), "\n".join(cells), *(["\n".join(options)] if options else [])]
    return "\n\n".join([*parts, instruction])


def question_of(task: Task) -> str:
    """The question that all rows of a task ask."""
    if task.name in _QUESTIONS:
        return _QUESTIONS[task.name]
    prefix = next(prefix for prefix in _SERIES if task.name.startswith(prefix))
    topic = task.name.removeprefix(prefix).removesuffix("_answer").removesuffix("_-")
    words = [_SPELT_OUT.get(word, word) for word in topic.split("_") if word]
    return _SERIES[prefix].format(topic=" ".join(words).replace(" - ", ", "))


def _columns(task: Task) -> list[str]:
    """The question last, as in an examination; choices as they are numbered."""
    return sorted(task.prompt_columns, key=lambda name: (name == "question", name))


def _title(task: Task, column: str) -> str:
    return _COLUMNS.get((task.name, column)) or column.replace("_", " ").capitalize()


def _either(labels: tuple[str, ...]) -> str:
    """ "A, B or C"."""
    return " or ".join([", ".join(labels[:-1]), labels[-1]]) if len(labels) > 1 else "".join(labels)
