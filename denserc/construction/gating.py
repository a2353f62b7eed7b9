"""Head Selection Gating (HSG): a gate per patch and head."""

import torch
from torch import nn


class HeadSelectionGating(nn.Module):
    """A_p = sigmoid(W_H LN(x)): one gate in 0..1 per patch and head, no mixing over patches.

    W_H has no bias (ViT-B/16: 768 x 12 = 9,216 parameters, the paper's 0.009 M). It starts at zero:
    every gate is one half, so that training starts from the ungated construction.

    Args:
        width: D of the tower.
        num_heads: A of the tower.
        num_gates: 1 for a W_H shared by all blocks, else one for each block.
    """

    def __init__(self, *, width: int, num_heads: int, num_gates: int = 1):
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(width, num_heads, bias=False) for _ in range(num_gates))
        for projection in self.projections:
            nn.init.zeros_(projection.weight)

    def forward(self, position: int, normed: torch.Tensor) -> torch.Tensor:
        """The gates of one block.

        Args:
            position: Index among the blocks used, from 0.
            normed: (B, T, D) = LN(x) of that block.

        Returns:
            (B, A, T, 1), to be multiplied with the values (B, A, T, d).
        """
        projection = self.projections[position if len(self.projections) > 1 else 0]
        return projection(normed).sigmoid().transpose(1, 2).unsqueeze(-1)
