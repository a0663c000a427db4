"""The image tower: a trunk with a head, from pictures to the space that a run learns.

    tower = ImageTower(Trunk("tf_efficientnet_lite0", NoWeights(0), frozen=False), Head(1280, 40))
    tower(pictures)                                             # (b, 3, 224, 224) uint8 -> (b, 40)

If a run trains on a feature column, its image tower is just the head: `class_path: multimodal.towers.Head`.
"""

from __future__ import annotations

from torch import Tensor, nn

from multimodal.errors import InputError
from multimodal.towers.head import Head
from multimodal.towers.trunk import Trunk


class ImageTower(nn.Module):
    """`head(trunk(image))`; in training mode `head(trunk(augment(image)))`.

    head: None: the trunk's features are the vectors, as those of a CLIP model are.
    augment: (b, 3, h, w) uint8 -> the same, such as `ColourJitter`; None for none. Not exported.
    Of several views of each picture, every one is treated by itself, and their vectors are joined in their order.
    """

    def __init__(self, trunk: Trunk, head: Head | None = None, augment: nn.Module | None = None) -> None:
        super().__init__()
        if head is not None and head.dim_in != trunk.dim:
            raise InputError(
                f"the trunk {trunk.architecture} has {trunk.dim} output dimensions, but head.dim_in is {head.dim_in}. "
                f"Set head.dim_in: {trunk.dim}"
            )
        self.trunk = trunk
        self.head = nn.Identity() if head is None else head
        self.augment = augment

    def forward(self, image: Tensor) -> Tensor:
        """image (b, 3, h, w) uint8, or v views of each (b, v, 3, h, w). Returns (b, dim_out), or (b, v * dim_out)."""
        if image.ndim == 5:
            return self(image.flatten(0, 1)).view(len(image), -1)
        if self.augment is not None and self.training:
            image = self.augment(image)
        rows: Tensor = self.head(self.trunk(image))
        return rows
