"""LegalBench (Guha et al. 2023, arXiv 2308.11462): its tasks, a local copy of them, and scores.

`registry` knows the 162 tasks, `checkout` reads their rows from disk, `scoring` computes what the
benchmark computes, `corrected` the same with its defects mended, `averages` goes over all tasks of
a run, and `references` puts public models beside it. numpy, scikit-learn and nltk load when a
score needs them.
"""

from __future__ import annotations

from judicaita.legal.legalbench.averages import Predictions, Scoreboard, scoreboard
from judicaita.legal.legalbench.checkout import (
    GOLD_COLUMNS,
    demonstrated,
    load_tasks,
    tasks_folder,
)
from judicaita.legal.legalbench.corrected import corrected_score
from judicaita.legal.legalbench.references import (
    Comparison,
    ReferenceScore,
    compare,
    reference_scores,
)
from judicaita.legal.legalbench.registry import (
    CATEGORIES,
    ISSUE_SPOTTING,
    TASKS,
    AnswerType,
    Metric,
    Task,
    get_task,
    select,
)
from judicaita.legal.legalbench.scoring import check_scorable, official_score

__all__ = [
    "CATEGORIES",
    "GOLD_COLUMNS",
    "ISSUE_SPOTTING",
    "TASKS",
    "AnswerType",
    "Comparison",
    "Metric",
    "Predictions",
    "ReferenceScore",
    "Scoreboard",
    "Task",
    "check_scorable",
    "compare",
    "corrected_score",
    "demonstrated",
    "get_task",
    "load_tasks",
    "official_score",
    "reference_scores",
    "scoreboard",
    "select",
    "tasks_folder",
]
