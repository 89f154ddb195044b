"""How a trace reads, whatever a model wrote into it."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from judicaita.legal.answers import parse_reasoning
from judicaita.legal.tasks import generate
from judicaita.reasoning_trace import ModelInfo, ReasoningStep, ReasoningTrace
from judicaita.reasoning_trace.trace import NOTICE, join_prompt, warnings_about

MODEL = ModelInfo(
    checkpoint="runs/final",
    base_model="tiny",
    step=120,
    policy_version=119,
    parameters=149_312,
    device="cpu",
    dtype="float32",
    judicaita="0.1.0",
)
TRACE = ReasoningTrace(
    query="Is there diversity jurisdiction?",
    context="Ava is from Alaska.",
    text="Step 1: Plaintiffs: Alaska.\nStep 2:\nConclusion: No",
    steps=(ReasoningStep(1, "Plaintiffs: Alaska.", 0.25), ReasoningStep(2, "", None)),
    conclusion="No",
    confidence=0.875,
    truncated=False,
    warnings=(),
    model=MODEL,
    created="2026-01-02T03:04:05+00:00",
    seconds=0.5,
    completion_tokens=17,
)
HOSTILE = "# Heading <script>alert(1)</script> [x](javascript:alert(1)) | pipe"
MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def variant(**changes: Any) -> ReasoningTrace:
    return dataclasses.replace(TRACE, **changes)


def text_of(tokens: list[Any]) -> str:
    """What a reader of the rendered page sees; anything but text and own markup fails."""
    assert {token.type for token in tokens} <= {"text", "text_special", "code_inline"} | {
        "strong_open",
        "strong_close",
    }
    return "".join(token.content for token in tokens)


def rendered(trace: ReasoningTrace) -> list[str]:
    """The headings, paragraphs and items of a trace's Markdown as a reader sees them."""
    blocks = MARKDOWN.parse(trace.to_markdown())
    assert {block.type for block in blocks} <= {
        *("heading_open", "heading_close", "inline", "paragraph_open", "paragraph_close", "fence"),
        *("bullet_list_open", "bullet_list_close", "list_item_open", "list_item_close"),
    }
    assert [block.tag for block in blocks if block.type == "heading_open"] == ["h1"]
    return [
        block.content if block.type == "fence" else text_of(block.children)
        for block in blocks
        if block.type in {"inline", "fence"}
    ]


def test_markdown_shows_every_part() -> None:
    assert str(TRACE) == TRACE.to_markdown()
    assert rendered(TRACE) == [
        "Reasoning trace",
        "Question: Is there diversity jurisdiction?",
        "Context: Ava is from Alaska.",
        "Step 1 (confidence 0.250, unverified): Plaintiffs: Alaska.",
        "Step 2 (no confidence, unverified):",
        "Conclusion (confidence 0.875): No",
        "Confidence is the geometric mean of the probabilities that the model gave to its own "
        "tokens: how sure it was of these words, not how likely they are to be right. No step was "
        "verified.",
        "Model: runs/final on tiny, step 120; 149,312 parameters, float32 on cpu; 17 tokens in "
        "0.50 s; judicaita 0.1.0; 2026-01-02T03:04:05+00:00.",
        "Written by a language model. This is no legal advice.",
    ]


def test_a_reader_of_plain_text_sees_ordinary_prose_untouched() -> None:
    assert "(confidence 0.250, unverified): Plaintiffs: Alaska.\n" in TRACE.to_markdown()


def test_what_is_missing_is_said_and_the_completion_shown_as_it_is() -> None:
    text = "Well.\n\nStep 1: Plaintiffs: Alaska."
    trace = variant(
        text=text,
        conclusion=None,
        confidence=None,
        warnings=("There is no conclusion.",),
        context="",
    )
    assert not trace.well_formed
    parts = rendered(trace)
    assert "Conclusion: the model wrote none." in parts
    assert "Warning: There is no conclusion." in parts
    assert f"{text}\n" in parts
    assert not any(part.startswith("Context") for part in parts)


def test_a_folder_of_other_origin_has_no_base_or_step_to_name() -> None:
    model = dataclasses.replace(MODEL, base_model=None, step=None, policy_version=None)
    assert any(
        part.startswith("Model: runs/final; 149,312") for part in rendered(variant(model=model))
    )


@pytest.mark.parametrize(
    ("confidence", "shown"),
    [
        (1.0, "confidence 1.000"),
        (0.99999, "confidence above 0.999"),
        (0.9994, "confidence 0.999"),
        (0.0005, "confidence 0.001"),
        (1e-9, "confidence below 0.001"),
    ],
)
def test_rounding_makes_nobody_sure(confidence: float, shown: str) -> None:
    assert f"Conclusion ({shown}): No" in rendered(variant(confidence=confidence))


@pytest.mark.parametrize(
    "text",
    [
        HOSTILE,
        f"fine\n\n{HOSTILE}\n\n---\n\n[ref]: https://evil.example\n\n1. one\n\n> quote",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "```\n</div>\n```` `tick`` ~~~",
        "![image](data:x) &lt;b&gt; <https://evil.example> ~~gone~~ **bold** _em_ \\",
        "See https://evil.example/a_b?c=`d`, www.evil.example and (me@evil.example).",
        "    indented\n\ttab\r\nnext\u2028line",
    ],
)
def test_no_text_becomes_markup(text: str) -> None:
    """Wherever it stands, a reader sees the text itself, its runs of blanks as one."""
    seen = " ".join(text.split())
    trace = variant(
        query=text,
        context=text,
        text=text,
        steps=(ReasoningStep(1, text, 0.5),),
        conclusion=text,
        warnings=("There are no steps.",),
    )
    parts = rendered(trace)
    assert parts[1:5] == [
        f"Question: {seen}",
        f"Context: {seen}",
        f"Step 1 (confidence 0.500, unverified): {seen}",
        f"Conclusion (confidence 0.875): {seen}",
    ]
    assert "\n".join(text.splitlines()) + "\n" in parts


@given(st.text(st.sampled_from("#<>[]()!`*_~|\\&;:/@.=-+1 \nawhtps"), max_size=40))
def test_no_text_becomes_markup_whatever_it_is(text: str) -> None:
    seen = f"Conclusion (confidence 0.875): {' '.join(text.split())}"
    assert rendered(variant(conclusion=text))[5] == seen.rstrip()


@pytest.mark.parametrize("link", ["https://evil.example", "WWW.evil.example", "a@evil.example"])
def test_bare_links_stand_in_code_where_no_renderer_links_them(link: str) -> None:
    assert f": see `{link}` now" in variant(conclusion=f"see {link} now").to_markdown()


def test_control_characters_do_not_reach_a_terminal() -> None:
    text = "No\x1b[2J\x07\x9b1m\u202eseY"
    markdown = variant(conclusion=text, text=text, warnings=("There are no steps.",)).to_markdown()
    assert markdown.count("No�\\[2J��1m�seY") == 1
    assert markdown.count("No�[2J��1m�seY") == 1
    assert json.loads(variant(conclusion=text).to_json())["conclusion"] == text


def test_json_holds_every_field() -> None:
    content = json.loads(TRACE.to_json())
    assert content.pop("well_formed") is True
    assert content.pop("notice") == NOTICE
    assert content["steps"][0] == {
        "number": 1,
        "text": "Plaintiffs: Alaska.",
        "confidence": 0.25,
        "verification": "unverified",
    }
    assert content == json.loads(json.dumps(dataclasses.asdict(TRACE)))


def test_json_is_strict() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        variant(confidence=float("nan")).to_json()


@pytest.mark.parametrize(
    ("query", "context", "prompt"),
    [
        ("Yes or no?", "", "Yes or no?"),
        ("Yes or no?", "A fact.", "A fact. Yes or no?"),
        ("Yes or no?", "A fact.\nAnother.", "A fact.\nAnother.\n\nYes or no?"),
        ("Yes\nor no?", "A fact.", "A fact.\n\nYes\nor no?"),
    ],
)
def test_the_context_comes_first(query: str, context: str, prompt: str) -> None:
    assert join_prompt(query, context) == prompt


def test_facts_and_question_of_a_generated_sample_make_its_training_prompt() -> None:
    question = "Is there diversity jurisdiction?"
    for sample in generate("diversity", 12, split="train", seed=0, levels=range(1, 7)):
        facts = str(sample.prompt).removesuffix(question).strip()
        assert join_prompt(question, facts) == sample.prompt


@pytest.mark.parametrize(
    ("text", "truncated", "warnings"),
    [
        ("Step 1: a.\nStep 2: b.\nConclusion: Yes", False, []),
        (" \n", True, ["The model wrote nothing."]),
        ("Yes", False, ["There are no steps.", "There is no conclusion."]),
        ("Step 1: a.\nConclusion:", False, ["The conclusion is empty."]),
        ("Step 1:\nConclusion: Yes", False, ["Step 1 is empty."]),
        ("Step 2: b.\nStep 1: a.\nConclusion: Yes", False, ["The steps are numbered 2, 1."]),
        (
            "Conclusion: Yes\nStep 1: a.",
            False,
            ["A step follows the conclusion."],
        ),
        (
            "Step 1: a.\nConclusion: Yes\nConclusion: No",
            False,
            ["There are 2 conclusions; the last one counts."],
        ),
        (
            "Sure!\nStep 1: a.\nConclusion: Y",
            True,
            [
                "Words that belong to no step stand before the first one.",
                "The token limit cut the text, so its end is missing.",
            ],
        ),
    ],
)
def test_warnings_name_what_is_wrong(text: str, truncated: bool, warnings: list[str]) -> None:
    assert list(warnings_about(text, parse_reasoning(text), truncated=truncated)) == warnings


def test_a_trace_is_read_without_torch() -> None:
    code = (
        "import sys; from judicaita.reasoning_trace import ReasoningTrace; "
        "print('torch' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
