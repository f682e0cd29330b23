"""Fit one task's head anew to the finished trunk, by squared error: `python -m edgemtl.train.refit --help`.

Depth is trained with L1, as in the reference (M3ViT), which aims at the median; its metric, RMSE, wants the mean. The
head is small, so it is trained alone on the tokens that the frozen model gives for plain training images: minutes
instead of hours, and no other task changes by a bit.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor

from edgemtl import tasks
from edgemtl.errors import ConfigError
from edgemtl.model.vit import MultiTaskViT
from edgemtl.tasks import INVALID
from edgemtl.train.data import Samples
from edgemtl.train.losses import resize


@torch.no_grad()
def tokens_of(model: MultiTaskViT, task: str, images: Tensor) -> Tensor:
    """What the head of `task` is given for images [B, 3, H, W]: tokens [B, N, C]."""
    caught: list[Tensor] = []
    hook = model.heads[task].register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    try:
        model(images, [task])
    finally:
        hook.remove()
    return caught[0]


def refit(
    model: MultiTaskViT,
    task: str,
    data: Samples,
    indices: Sequence[int],
    *,
    steps: int,
    batch: int = 32,
    lr: float = 1e-3,
    stride: int = 2,
    seed: int = 0,
) -> list[float]:
    """Train the head of `task`, of a quantity such as depth, in place; returns the loss (m²) of each step.

    `data` gives plain batches; labels are every `stride`-th pixel, from the first. AdamW, cosine to zero.
    Raises ConfigError for a task that is no quantity.
    """
    if not tasks.find(model.config.task(task).kind).unit:
        raise ConfigError(f"only the head of a quantity can be fitted by squared error, and {task!r} is none")
    model.eval()
    part = model.slice(task)
    kept, labels = [], []
    for i in range(0, len(indices), batch):
        samples = data.batch(list(indices[i : i + batch]))
        kept.append(tokens_of(part, task, samples["image"].contiguous()).half())
        labels.append(samples[task][..., ::stride, ::stride].half())
    tokens, label = torch.cat(kept), torch.cat(labels)
    head = copy.deepcopy(model.heads[task]).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    generator, losses = torch.Generator().manual_seed(seed), []
    for _ in range(steps):
        chosen = torch.randint(len(tokens), (min(batch, len(tokens)),), generator=generator)
        want = label[chosen].float()
        got = resize(head(tokens[chosen].float()), (want.shape[-2], want.shape[-1]))
        valid = want != INVALID
        loss = F.mse_loss(got[valid], want[valid])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
    model.heads[task].load_state_dict(head.state_dict())
    return losses


def main(
    checkpoint: Path,
    out: Annotated[Path, typer.Option("-o", "--out", help="The checkpoint to write.")],
    data: Annotated[Path, typer.Option(help="Folder in the NYUD_MT layout.")] = Path("data/rooms"),
    task: str = "depth",
    images: int = 3000,
    steps: int = 900,
    origin: str = "",
) -> None:
    """Fit the head of a task anew, by squared error."""
    from edgemtl.model.checkpoint import load_checkpoint, save_checkpoint
    from edgemtl.train.data import open_data, spread

    model, info = load_checkpoint(checkpoint)
    samples = open_data(data, "train", model.config)
    losses = refit(model, task, samples, spread(samples, images), steps=steps)
    tenth = max(1, steps // 10)
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    save_checkpoint(out, model, model.config, origin=origin or f"{info.origin}; head of {task} refitted")
    print(f"{out}: squared error {first:.4f} to {last:.4f} m² over {steps} steps")


if __name__ == "__main__":
    typer.run(main)
