"""Words that generated questions are filled with. None of them decides anything."""

from __future__ import annotations


def _listed(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(","))


STATES = _listed(
    "Alabama, Alaska, Arizona, Arkansas, California, Colorado, Connecticut, Delaware, Florida, "
    "Georgia, Hawaii, Idaho, Illinois, Indiana, Iowa, Kansas, Kentucky, Louisiana, Maine, "
    "Maryland, Massachusetts, Michigan, Minnesota, Mississippi, Missouri, Montana, Nebraska, "
    "Nevada, New Hampshire, New Jersey, New Mexico, New York, North Carolina, North Dakota, Ohio, "
    "Oklahoma, Oregon, Pennsylvania, Rhode Island, South Carolina, South Dakota, Tennessee, Texas, "
    "Utah, Vermont, Virginia, Washington, West Virginia, Wisconsin, Wyoming"
)
"""The fifty states of the United States."""

NAMES = _listed(
    "Amelia, Ava, Benjamin, Charlotte, Daniel, Elijah, Emma, Evelyn, Grace, Harper, Henry, "
    "Isabella, James, Liam, Lucas, Mia, Noah, Oliver, Olivia, Samuel, Sophia, Theodore, Violet, "
    "William"
)
"""First names, one word each."""

CAUSES = _listed(
    "breach of contract, copyright infringement, defamation, legal malpractice, "
    "medical malpractice, negligence, nuisance, patent infringement, securities fraud, "
    "trademark infringement, trespass, wrongful eviction"
)
"""Causes of action, as they follow "sues … for"."""
