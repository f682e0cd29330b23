"""Two sets as one: in each epoch all images of the first, and some of the second, drawn anew.

For a small set of photographs beside a large one that was rendered.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edgemtl.train.data import Samples


class Mixed:
    """`first` and, as the share `share` of an epoch's images, some of `second`; both with the same tasks and size.

    Which ones these are is a pure function of (seed, epoch); no image comes twice in an epoch.
    """

    def __init__(self, first: Samples, second: Samples, share: float, seed: int) -> None:
        self.first, self.second, self.seed = first, second, seed
        self.extra = min(len(second), round(len(first) * share / (1 - share)))
        self.set_epoch(0)

    def __len__(self) -> int:
        return len(self.first) + self.extra

    def set_epoch(self, epoch: int) -> None:
        self.first.set_epoch(epoch)
        self.second.set_epoch(epoch)
        rng = np.random.Generator(np.random.PCG64([self.seed, 3, epoch]))
        self._drawn = rng.choice(len(self.second), self.extra, replace=False)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """In the order of `indices`: from len(first) on they are the second's."""
        own, size = np.asarray(indices), len(self.first)
        mine = own < size
        parts = [(s, i) for s, i in ((self.first, own[mine]), (self.second, self._drawn[own[~mine] - size])) if len(i)]
        found = [data.batch([int(i) for i in part]) for data, part in parts]
        back = torch.from_numpy(np.argsort(np.argsort(~mine, kind="stable"), kind="stable"))
        return {key: torch.cat([batch[key] for batch in found])[back] for key in found[0]}
