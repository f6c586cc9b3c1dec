"""Class names → sentences → one normal and one anomalous direction in CLIP's space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptEnsemble:
    """State phrases around a class name, each put into every template.

    Phrases and templates hold one `{}`: for the class name, and for the phrase.
    """

    normal: tuple[str, ...]
    anomalous: tuple[str, ...]
    templates: tuple[str, ...]

    def sentences(self, class_name: str) -> tuple[list[str], list[str]]:
        """Return the normal and the anomalous sentences of a class, phrase by phrase."""
        return self._fill(self.normal, class_name), self._fill(self.anomalous, class_name)

    @property
    def normal_count(self) -> int:
        """How many normal sentences there are."""
        return len(self.normal) * len(self.templates)

    def _fill(self, phrases: Sequence[str], class_name: str) -> list[str]:
        states = [phrase.format(class_name) for phrase in phrases]
        return [template.format(state) for state in states for template in self.templates]


AACLIP_PROMPTS = PromptEnsemble(
    normal=("{}", "a {}", "the {}"),
    anomalous=(
        "a damaged {}",
        "a broken {}",
        "a {} with flaw",
        "a {} with defect",
        "a {} with damage",
    ),
    templates=("{}.", "a photo of {}."),
)
"""AA-CLIP (arXiv 2503.06661): 6 normal and 10 anomalous sentences."""

ADACLIP_PROMPTS = PromptEnsemble(
    normal=(
        "{}",
        "flawless {}",
        "perfect {}",
        "unblemished {}",
        "{} without flaw",
        "{} without defect",
        "{} without damage",
    ),
    anomalous=("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage"),
    templates=(
        "a bad photo of a {}.",
        "a low resolution photo of the {}.",
        "a bad photo of the {}.",
        "a cropped photo of the {}.",
    ),
)
"""AdaCLIP (arXiv 2407.15795): 28 normal and 20 anomalous sentences."""


def anchors_of(normal: Tensor, anomalous: Tensor) -> Tensor:
    """Average sentence features into anchors.

    Args:
        normal: (…, P, D), features of the normal sentences, any length.
        anomalous: (…, Q, D).

    Returns:
        (…, D, 2), unit columns: 0 normal, 1 anomalous. Features are normalised before the mean, so
        that every sentence has one vote, and the mean is normalised again.
    """
    means = [F.normalize(group, dim=-1).mean(dim=-2) for group in (normal, anomalous)]
    return F.normalize(torch.stack(means, dim=-1), dim=-2)
