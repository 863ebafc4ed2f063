"""The M3 model: one body, three heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn

from m3connect.model.backbone import Backbone
from m3connect.model.heads import Heads, Representations

if TYPE_CHECKING:
    from m3connect.model.config import M3Config


class M3Model(nn.Module):
    """Token ids to dense, sparse and multi-vector representations.

    A new model's weights are torch's initial ones; ``weights.load_model`` gives it a checkpoint's.

    Args:
        config: body and heads.
    """

    def __init__(self, config: M3Config) -> None:
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.body)
        self.heads = Heads(config.body.hidden_size, config.multivector_width, config.pooling)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Representations:
        """See :class:`Representations`.

        Args:
            ids: ``int64 [B, L]``, padded on the right.
            mask: ``bool [B, L]``, true for tokens; None when nothing is padded.
        """
        representations: Representations = self.heads(self.backbone(ids, mask), mask)
        return representations

    def tensors(self) -> dict[str, Tensor]:
        """All weights under their published names."""
        return {**self.backbone.state_dict(), **self.heads.state_dict()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over weights under their published names; they are not copied."""
        for part in (self.backbone, self.heads):
            names = part.state_dict().keys()
            part.load_state_dict({name: tensors[name] for name in names}, assign=True)
