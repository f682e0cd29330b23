"""What the sparse model is compared with: a light convolution network of two streams, all tasks at once.

BiSeNet (Yu et al., ECCV 2018): a shallow spatial path keeps the outlines, a deep context path with global pooling
and attention refinement knows what they belong to, and a fusion step weighs the channels of both. It was made for
frames of 1024x2048 pixels; here the spatial path ends at a quarter of the frame instead of an eighth, because frames
are small. One light head per task. Written from the paper's description.

The dense twins of the ViT need no code: one expert of ratio 4 is a dense MLP, its softmax being 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from edgemtl.config import ModelConfig, TaskConfig
from edgemtl.errors import CheckpointError
from edgemtl.model.checkpoint import load_checkpoint, save_checkpoint, serialise, write_atomic
from edgemtl.model.vit import MultiTaskViT, Trace

FORMAT = "edgemtl-bisenet"


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """ResNet's basic block (He et al., CVPR 2016): two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = conv(inputs, outputs, stride=stride)
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.short: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.short(x))


class Refine(nn.Module):
    """Attention refinement: a 3x3 convolution whose channels are scaled by a gate of their means."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = conv(inputs, outputs)
        self.gate = nn.Conv2d(outputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * self.gate(x.mean((2, 3), keepdim=True)).sigmoid()


class Fuse(nn.Module):
    """Feature fusion: both streams mixed by a 1x1 convolution, then channels reweighed beside the identity."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = conv(inputs, outputs, 1)
        self.squeeze = nn.Conv2d(outputs, outputs // 4, 1)
        self.excite = nn.Conv2d(outputs // 4, outputs, 1)

    def forward(self, detail: Tensor, context: Tensor) -> Tensor:
        x = self.mix(torch.cat([detail, context], 1))
        return x + x * self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))).sigmoid()


class BiSeNet(nn.Module):
    """`model(image)` returns {task: raw map [B, channels, H / 4, W / 4]}; image as for `MultiTaskViT`.

    H and W are multiples of 32. `width` is the channels of the context path's first stage.
    """

    def __init__(self, config: ModelConfig, width: int = 32) -> None:
        super().__init__()
        self.config = config
        w, fused = width, 4 * width
        self.spatial = nn.Sequential(conv(3, w, stride=2), conv(w, 2 * w, stride=2), conv(2 * w, 2 * w))
        self.stem = nn.Sequential(conv(3, w, stride=2), conv(w, w, stride=2))
        self.stage8 = nn.Sequential(Residual(w, 2 * w, 2), Residual(2 * w, 2 * w, 1))
        self.stage16 = nn.Sequential(Residual(2 * w, 4 * w, 2), Residual(4 * w, 4 * w, 1))
        self.stage32 = nn.Sequential(Residual(4 * w, 8 * w, 2), Residual(8 * w, 8 * w, 1))
        self.pool = nn.Conv2d(8 * w, fused, 1)
        self.refine16, self.refine32 = Refine(4 * w, fused), Refine(8 * w, fused)
        self.up16, self.up8 = conv(fused, fused), conv(fused, 2 * w)
        self.fuse = Fuse(4 * w, 2 * w)
        self.heads = nn.ModuleDict(
            {t.name: nn.Sequential(conv(2 * w, 2 * w), nn.Conv2d(2 * w, t.channels, 1)) for t in config.tasks}
        )

    def forward(self, image: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        detail = self.spatial(image)
        at16 = self.stage16(self.stage8(self.stem(image)))
        at32 = self.stage32(at16)
        whole = self.pool(at32.mean((2, 3), keepdim=True))  # one vector: what the whole picture is about
        x = self.up16(F.interpolate(self.refine32(at32) + whole, scale_factor=2.0, mode="nearest"))
        x = self.up8(F.interpolate(self.refine16(at16) + x, scale_factor=2.0, mode="nearest"))
        context = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        fused = self.fuse(detail, context)
        return {name: self.heads[name](fused) for name in (tasks or self.config.task_names)}

    def trace(self, image: Tensor, tasks: Sequence[str] | None = None) -> tuple[dict[str, Tensor], Trace]:
        """As `MultiTaskViT.trace`, so that one loop trains both; there are no gates to note."""
        return self(image, tasks), Trace(image.new_zeros(()), {})


def bisenet(tasks: Sequence[TaskConfig], image_size: tuple[int, int] = (128, 256)) -> BiSeNet:
    """A BiSeNet-class network for `tasks` on frames of `image_size` (height, width), untrained."""
    return BiSeNet(ModelConfig(name="bisenet", tasks=tuple(tasks), image_size=image_size))


def save_bisenet(path: str | Path, state: dict[str, Tensor], config: ModelConfig, *, origin: str = "") -> None:
    """Write a state of `BiSeNet(config)` as float32 safetensors with its configuration in the metadata."""
    metadata = {"format": FORMAT, "origin": origin, "config": config.model_dump_json()}
    tensors = {k: state[k].detach().cpu().contiguous() for k in sorted(state)}
    write_atomic(Path(path), serialise(tensors, metadata))


def load_bisenet(path: str | Path) -> BiSeNet:
    """Read what `save_bisenet` wrote, in evaluation mode. Raises CheckpointError for anything else."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}; make one with `python -m edgemtl.train.study`")
    try:
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path} holds no BiSeNet; give a checkpoint that the study wrote")
            model = BiSeNet(ModelConfig.model_validate_json(metadata["config"]))
            model.load_state_dict({k: file.get_tensor(k) for k in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError, RuntimeError) as e:
        raise CheckpointError(f"{path} is damaged ({e}); train it again") from None
    return model.eval()


Network = MultiTaskViT | BiSeNet  # what the training loop trains


def make_network(name: str, config: ModelConfig) -> Network:
    """The untrained network that a recipe calls `name`: "vit" or "bisenet"."""
    return BiSeNet(config) if name == "bisenet" else MultiTaskViT(config)


def save_network(name: str, path: Path, state: dict[str, Tensor], config: ModelConfig, origin: str) -> None:
    """Write the state of `make_network(name, config)` in its own format."""
    if name == "bisenet":
        save_bisenet(path, state, config, origin=origin)
    else:
        save_checkpoint(path, state, config, origin=origin)


def load_network(path: Path) -> Network:
    """Read either kind, in evaluation mode on the CPU. Raises CheckpointError as the two readers do."""
    try:
        with safe_open(str(path), "pt") as file:
            ours = (file.metadata() or {}).get("format") == FORMAT
    except (SafetensorError, OSError):
        ours = False
    return load_bisenet(path) if ours else load_checkpoint(path)[0]
