"""One explained answer as data, as Markdown and as JSON. Torch-free.

Everything in a `ReasoningTrace` is what a model wrote, a figure taken from its own probabilities,
or a fact about the run. What the model did not write is None, and a warning says so.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Literal

from judicaita.legal.answers import Reasoning
from judicaita.training.markdown import block, code, inline

NOTICE = "Written by a language model. This is no legal advice."
"""In every trace, whatever its form."""

CONFIDENCE_MEANING = (
    "Confidence is the geometric mean of the probabilities that the model gave to its own tokens: "
    "how sure it was of these words, not how likely they are to be right. No step was verified."
)
"""In every trace that a person reads."""


@dataclass(frozen=True)
class ReasoningStep:
    """One "Step N: …" of the model's text."""

    number: int
    """As the model wrote it, which need not be its place in the order."""
    text: str
    confidence: float | None
    """As `ReasoningTrace.confidence`, over the tokens of this step; None where it is empty."""
    verification: Literal["unverified"] = "unverified"
    """Whether anything but the model stands behind the step. Nothing checks steps yet."""


@dataclass(frozen=True)
class ModelInfo:
    """Which weights wrote a trace, and where they ran."""

    checkpoint: str
    """The folder, as it was named."""
    base_model: str | None
    """What the run, or else the adapter, started from; None where the folder does not say."""
    step: int | None
    """Optimizer steps of the run that wrote the folder; None for a folder of other origin."""
    policy_version: int | None
    """Optimizer updates behind the weights: steps less those that were skipped."""
    parameters: int
    """Of the model, an adapter's included."""
    device: str
    dtype: str
    """The precision of the forward pass, such as ``bfloat16``."""
    judicaita: str
    """The version of this package."""


@dataclass(frozen=True)
class ReasoningTrace:
    """A question, and the answer of a model taken apart into steps and a conclusion."""

    query: str
    context: str
    text: str
    """The completion as the model wrote it, without special tokens."""
    steps: tuple[ReasoningStep, ...]
    conclusion: str | None
    """What follows the last "Conclusion:"; None when the model wrote none."""
    confidence: float | None
    """In (0, 1]: exp of the mean log-probability (nats) of the conclusion's tokens, its marker and
    the EOS left out, in the model's own distribution at temperature 1. That is how certain the
    model was of its words, not the chance that they are right. None without a conclusion."""
    truncated: bool
    """True when the token limit cut the completion."""
    warnings: tuple[str, ...]
    """What is wrong with the completion's form, a sentence each; see `warnings_about`."""
    model: ModelInfo
    created: str
    """UTC, ISO 8601."""
    seconds: float
    """Wall-clock time of the generation, without loading the model or waiting for it; of the whole
    batch, where several questions were answered together."""
    completion_tokens: int
    """The EOS token included."""

    @property
    def well_formed(self) -> bool:
        """True without warnings: steps counted from 1, one conclusion after them, nothing cut."""
        return not self.warnings

    def to_json(self) -> str:
        """Strict JSON (no NaN) of every field, ``well_formed`` and the notice."""
        content = {**asdict(self), "well_formed": self.well_formed, "notice": NOTICE}
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)

    def to_markdown(self) -> str:
        """For a person to read, in a terminal or rendered.

        Runs of blanks become one, and markup in the texts is escaped: neither the model nor the
        question can add a heading, a link or HTML. A completion that is not well-formed is shown as
        it is besides, since words of it may belong to no step.
        """
        context = [f"**Context:** {inline(self.context)}"] if self.context else []
        steps = "\n".join(
            f"- **Step {step.number}** ({_certainty(step.confidence)}, {step.verification}): "
            f"{inline(step.text)}".rstrip()
            for step in self.steps
        )
        conclusion = (
            "**Conclusion:** the model wrote none."
            if self.conclusion is None
            else f"**Conclusion** ({_certainty(self.confidence)}): {inline(self.conclusion)}"
        )
        parts = [
            "# Reasoning trace",
            f"**Question:** {inline(self.query)}",
            *context,
            *([steps] if steps else []),
            conclusion,
            *self._irregularities(),
            CONFIDENCE_MEANING,
            self._origin(),
            f"**{NOTICE}**",
        ]
        return "\n\n".join(parts)

    def __str__(self) -> str:
        return self.to_markdown()

    def _irregularities(self) -> list[str]:
        """The warnings, and the completion as it is."""
        if self.well_formed:
            return []
        warnings = "\n".join(f"- **Warning:** {warning}" for warning in self.warnings)
        return [warnings, "The completion as the model wrote it:", block(self.text)]

    def _origin(self) -> str:
        model = self.model
        base = f" on {code(model.base_model)}" if model.base_model else ""
        step = "" if model.step is None else f", step {model.step}"
        return (
            f"Model: {code(model.checkpoint)}{base}{step}; {model.parameters:,} parameters, "
            f"{model.dtype} on {model.device}; {self.completion_tokens} tokens in "
            f"{self.seconds:.2f} s; judicaita {model.judicaita}; {self.created}."
        )


def join_prompt(query: str, context: str = "") -> str:
    """The prompt of a question about a context: the context first, as in the training prompts.

    One blank joins two texts of one line each, as generated families write facts and question; an
    empty line joins them as soon as either has several.
    """
    if not context:
        return query
    separator = "\n\n" if "\n" in query + context else " "
    return f"{context}{separator}{query}"


def warnings_about(text: str, reasoning: Reasoning, *, truncated: bool) -> tuple[str, ...]:
    """What keeps a completion from being "Step 1: … Step 2: … Conclusion: …", a sentence each."""
    if not text.strip():
        return ("The model wrote nothing.",)
    found: list[str] = []
    numbers = [step.number for step in reasoning.steps]
    if not numbers:
        found.append("There are no steps.")
    elif numbers != list(range(1, len(numbers) + 1)):
        found.append(f"The steps are numbered {', '.join(map(str, numbers))}.")
    found += [f"Step {step.number} is empty." for step in reasoning.steps if not step.text]
    if reasoning.conclusion is None:
        found.append("There is no conclusion.")
    elif not reasoning.conclusion:
        found.append("The conclusion is empty.")
    if reasoning.conclusions > 1:
        found.append(f"There are {reasoning.conclusions} conclusions; the last one counts.")
    start = reasoning.conclusion_start
    if start is not None and reasoning.steps and start < reasoning.steps[-1].start:
        found.append("A step follows the conclusion.")
    if reasoning.boundaries and text[: reasoning.boundaries[0]].strip():
        found.append("Words that belong to no step stand before the first one.")
    if truncated:
        found.append("The token limit cut the text, so its end is missing.")
    return tuple(found)


def _certainty(confidence: float | None) -> str:
    """Three decimals that never round an unsure model up to 1, nor down to 0."""
    if confidence is None:
        return "no confidence"
    if 0.9995 <= confidence < 1:
        return "confidence above 0.999"
    if confidence < 0.0005:
        return "confidence below 0.001"
    return f"confidence {confidence:.3f}"
