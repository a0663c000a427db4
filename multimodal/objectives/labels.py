"""Objectives that learn from labels, such as classes or identities: rows of equal labels belong together, all others do not.

    loss, parts = Triplet(margin=0.2, miner=SemiHard())(image_rows, labels, batch.valid)       # (b, d), (b,) int64, (b,)

Every rank compares its own rows with those of all ranks. What a label is called is irrelevant: only which are equal counts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from multimodal.objectives.base import Objective, Parts, gather, rank


@dataclass(frozen=True, slots=True)
class Labelled:
    """This rank's rows, and those of all ranks with which they are compared.

    rows (b, d) float32 or float64, zeros where not valid; label (b,) int64; valid (b,) bool; first: the place of this rank's first row
    among all. others (B, d), labels (B,), counted (B,): the same of all ranks. The gradient of `others` flows back to their ranks.
    """

    rows: Tensor
    label: Tensor
    valid: Tensor
    first: int
    others: Tensor
    labels: Tensor
    counted: Tensor

    @classmethod
    def of(cls, rows: Tensor, label: Tensor, valid: Tensor) -> Labelled:
        """Of this rank's part; called on all ranks together."""
        others, labels, counted = gather(rows), gather(label), gather(valid.to(torch.uint8)).bool()
        return cls(rows, label, valid, rank() * len(rows), others, labels, counted)

    def pairs(self, block: slice) -> tuple[Tensor, Tensor]:
        """Which of all rows have the label of each row of a block, itself left out, and which have another one: (m, B) bool each."""
        columns = torch.arange(len(self.labels), device=self.labels.device)
        both = self.valid[block, None] & self.counted
        equal = self.label[block, None] == self.labels
        itself = columns[block.start + self.first : block.stop + self.first, None] == columns
        return equal & both & ~itself, ~equal & both


class LabelObjective(Objective):
    """An objective whose target is a label of each row. To add one, write `compare`.

    normalise: compare directions, by rows scaled to length one, as a search by cosine does. Without it length counts: the rows may fill a
    plane, as in two dimensions they should, and only distances in the learned space are what was trained.
    """

    takes_labels = True

    def __init__(self, normalise: bool = False) -> None:
        super().__init__()
        self.normalise = normalise
        self.distance = "cosine" if normalise else "euclidean"

    def compare(self, batch: Labelled) -> tuple[Tensor, Parts]:
        """The loss of all ranks' rows, with this rank's part of the gradient (see `base`), and what else to log."""
        raise NotImplementedError(f"{type(self).__name__}.compare")

    def forward(self, image: Tensor, target: Tensor, valid: Tensor) -> tuple[Tensor, Parts]:
        """image (b, d) any float, target (b,) int64 labels, valid (b,) bool -> (scalar, detached scalars to log); see `Objective`."""
        image, target = clean_labelled(image, target, valid)
        with torch.autocast(image.device.type, enabled=False):
            batch = Labelled.of(self.output(image), target, valid)
            loss, parts = self.compare(batch)
        parts = {"loss": loss, "rows": batch.counted.sum().to(torch.float32), **parts}
        return loss, {name: value.detach() for name, value in parts.items()}

    def output(self, image: Tensor) -> Tensor:
        """(b, d) -> (b, d): as they are, or of length one."""
        return F.normalize(image, dim=1) if self.normalise else image


def clean_labelled(image: Tensor, label: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Rows in at least float32, and labels, both with zeros where they are not valid: replaced, not multiplied, since 0 * NaN is NaN."""
    if image.ndim != 2 or label.shape != image.shape[:1] or label.dtype != torch.int64:
        raise ValueError(
            f"the image side is {tuple(image.shape)} and the target {label.dtype} of shape {tuple(label.shape)}; this objective takes rows "
            "(b, d) and one int64 label for each. Set data.target to multimodal.data.Labels"
        )
    if valid.shape != image.shape[:1] or valid.dtype != torch.bool:
        raise ValueError(f"valid must be bool of shape ({len(image)},), one per row; it is {valid.dtype} of shape {tuple(valid.shape)}")
    image = image.to(torch.promote_types(image.dtype, torch.float32))
    return torch.where(valid[:, None], image, 0.0), torch.where(valid, label, 0)
