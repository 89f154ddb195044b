"""The quick start: what a reward for true steps teaches, beside what else could have taught it.

A small model learns worked solutions of easy questions. From there go three arms of equal time:
GRPO with the step reward, GRPO with the outcome alone, and more of the same supervised lessons. All
are asked the same held-out questions, harder than any it was shown a solution of.
"""

from __future__ import annotations

from judicaita.quickstart.run import run_quickstart

__all__ = ["run_quickstart"]
