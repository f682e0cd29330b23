"""M3ViT a second time: synthetic checkpoints in its key layout, and its equations in plain NumPy, one after the other.

Nothing here comes from edgemtl; the layout is that of the released code (github.com/VITA-Group/M3ViT).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

Float = np.ndarray[Any, np.dtype[np.float64]]
OUTPUTS = {"semseg": 21, "human_parts": 7, "sal": 1, "normals": 3, "edge": 1, "depth": 1}


def state_dict(
    *, tasks: list[str], gate: str, ratio: int, noisy: bool = False, grid: tuple[int, int] = (2, 4), c: int = 192,
    depth: int = 12, experts: int = 16, seed: int = 0,
) -> OrderedDict[str, torch.Tensor]:  # fmt: skip
    """Random weights, every tensor that the released code has for this form, in its order and types."""
    rng = np.random.default_rng(seed)
    out: OrderedDict[str, torch.Tensor] = OrderedDict()

    def add(key: str, *shape: int, std: float = 0.0, mean: float = 0.0) -> None:
        values = rng.standard_normal(shape, np.float32) * np.float32(std or 1 / math.sqrt(math.prod(shape[1:]) or 1))
        out[f"module.{key}"] = torch.from_numpy(values + np.float32(mean))

    def layer(key: str, *shape: int) -> None:
        add(f"{key}.weight", *shape)
        add(f"{key}.bias", shape[0], std=0.1)

    def norm(key: str, width: int) -> None:
        add(f"{key}.weight", width, std=0.1, mean=1)
        add(f"{key}.bias", width, std=0.1)

    bb, vector = "backbone", 64 if gate == "conditioned" else 0
    add(f"{bb}.cls_token", 1, 1, c, std=0.5)
    add(f"{bb}.pos_embed", 1, grid[0] * grid[1] + 1, c, std=0.5)
    layer(f"{bb}.patch_embed.proj", c, 3, 16, 16)
    if vector:
        layer(f"{bb}.gate_task_represent.fc1", vector, len(tasks))
        layer(f"{bb}.gate_task_represent.fc2", vector, vector)
        norm(f"{bb}.gate_task_represent.norm", vector)
    for i in range(depth):
        key = f"{bb}.blocks.{i}"
        norm(f"{key}.norm1", c)
        layer(f"{key}.attn.qkv", 3 * c, c)
        layer(f"{key}.attn.proj", c, c)
        norm(f"{key}.norm2", c)
        if i % 2 == 0:
            layer(f"{key}.mlp.fc1", 4 * c, c)
            layer(f"{key}.mlp.fc2", c, 4 * c)
            continue
        for g in [f"{t}." for t in range(len(tasks))] if gate == "multi" else [""]:
            add(f"{key}.mlp.gate.{g}w_gate", c + vector, experts, std=0.1)
            if noisy:
                add(f"{key}.mlp.gate.{g}w_noise", c + vector, experts, std=0.1)
        for name, shape in (("htoh4", (experts, ratio * c, c)), ("h4toh", (experts, c, ratio * c))):
            add(f"{key}.mlp.experts.{name}.weight", *shape, std=1 / math.sqrt(shape[2]))
            add(f"{key}.mlp.experts.{name}.bias", *shape[:2], std=0.1)
    for task in tasks:
        key = f"decoders.{task}"
        norm(f"{key}.norm", c)
        for j in range(4):
            layer(f"{key}.conv_{j}", 256, c if j == 0 else 256, 3, 3)
        layer(f"{key}.conv_4", OUTPUTS[task], 256, 1, 1)
        for j in range(4):
            norm(f"{key}.syncbn_fc_{j}", 256)
            add(f"{key}.syncbn_fc_{j}.running_mean", 256, std=0.1)
            out[f"module.{key}.syncbn_fc_{j}.running_var"] = torch.from_numpy(rng.uniform(0.5, 2, 256).astype("f4"))
            out[f"module.{key}.syncbn_fc_{j}.num_batches_tracked"] = torch.tensor(1234)
    layer("tam_model0.layers0.0", 256, 256, 3, 3)
    return out


def save(state: OrderedDict[str, torch.Tensor], path: Path, ranks: int = 0) -> Path:
    """As the released code writes it: one file, or with `ranks` a folder of expert parallelism."""
    weight = torch.nn.Parameter(torch.zeros(3))
    optimiser = torch.optim.SGD([weight], lr=0.002, momentum=0.9)
    weight.sum().backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    rest = {
        "epoch": 99,
        "backbone": "VisionTransformer_moe",
        "best_result": {"multi_task_performance": np.float64(1.59), "semseg": {"mIoU": np.float32(45.6)}},
        "optimizer": optimiser.state_dict(),
    }
    if not ranks:
        torch.save({**rest, "state_dict": state}, path)
        return path
    path.mkdir()
    for rank in range(ranks):
        part = OrderedDict()
        for key, value in state.items():
            if ".mlp.experts." in key:
                part[key] = value.chunk(ranks)[rank].clone()
            elif rank == 0:
                part[key] = value
        torch.save({**rest, "state_dict": part}, path / f"{rank}.pth")
    return path


def forward(state: OrderedDict[str, torch.Tensor], image: Float, task: int | None, name: str, **form: Any) -> Float:
    """The map [channels, H / 2, W / 2] of image [3, H, W]; `task` is the number that the gates know it by.

    form: heads, top_k, and noisy, which normalises over the chosen experts alone.
    """
    p = {k.removeprefix("module."): v.double().numpy() for k, v in state.items() if "num_batches" not in k}
    c = p["backbone.cls_token"].shape[-1]
    rows, columns = image.shape[1] // 16, image.shape[2] // 16
    patches = image.reshape(3, rows, 16, columns, 16).transpose(1, 3, 0, 2, 4).reshape(rows * columns, -1)
    x = patches @ p["backbone.patch_embed.proj.weight"].reshape(c, -1).T + p["backbone.patch_embed.proj.bias"]
    x = np.concatenate([p["backbone.cls_token"][0], x]) + p["backbone.pos_embed"][0]
    vector = np.zeros(0)
    if task is not None and "backbone.gate_task_represent.fc1.weight" in p:
        one_hot = np.eye(p["backbone.gate_task_represent.fc1.weight"].shape[1])[task]
        vector = linear(
            gelu(linear(one_hot, p, "backbone.gate_task_represent.fc1")), p, "backbone.gate_task_represent.fc2"
        )
        vector = layer_norm(vector, p, "backbone.gate_task_represent.norm")
    i = 0
    while f"backbone.blocks.{i}.norm1.weight" in p:
        key = f"backbone.blocks.{i}"
        q, k, v = np.split(linear(layer_norm(x, p, f"{key}.norm1"), p, f"{key}.attn.qkv"), 3, axis=1)
        width = c // form["heads"]
        mixed = np.zeros_like(x)
        for h in range(form["heads"]):
            part = slice(h * width, (h + 1) * width)
            mixed[:, part] = softmax(q[:, part] @ k[:, part].T / math.sqrt(width)) @ v[:, part]
        x = x + linear(mixed, p, f"{key}.attn.proj")
        y = layer_norm(x, p, f"{key}.norm2")
        if i % 2 == 0:
            x = x + linear(gelu(linear(y, p, f"{key}.mlp.fc1")), p, f"{key}.mlp.fc2")
        else:
            x = x + mixture(y, p, f"{key}.mlp", task, vector, form["top_k"], form.get("noisy", False))
        i += 1
    key = f"decoders.{name}"
    grid = layer_norm(x[1:], p, f"{key}.norm").T.reshape(c, rows, columns)
    for j in range(4):
        grid = convolution(grid if j == 0 else doubled(grid), p, f"{key}.conv_{j}")
        bn = [p[f"{key}.syncbn_fc_{j}.{n}"][:, None, None] for n in ("running_mean", "running_var", "weight", "bias")]
        grid = np.maximum((grid - bn[0]) / np.sqrt(bn[1] + 1e-5) * bn[2] + bn[3], 0)
    last = p[f"{key}.conv_4.weight"][:, :, 0, 0]
    out: Float = np.tensordot(last, grid, 1) + p[f"{key}.conv_4.bias"][:, None, None]
    return out


def mixture(y: Float, p: dict[str, Float], key: str, task: int | None, vector: Float, top_k: int, noisy: bool) -> Float:
    """Every token's chosen experts, one token and one expert at a time."""
    gate = p[f"{key}.gate.{task}.w_gate"] if f"{key}.gate.{task}.w_gate" in p else p[f"{key}.gate.w_gate"]
    out = np.zeros_like(y)
    w1, b1 = p[f"{key}.experts.htoh4.weight"], p[f"{key}.experts.htoh4.bias"]
    w2, b2 = p[f"{key}.experts.h4toh.weight"], p[f"{key}.experts.h4toh.bias"]
    for t, token in enumerate(y):
        logits = np.concatenate([token, vector]) @ gate
        chosen = np.argsort(-logits, kind="stable")[:top_k]
        score = softmax(logits[chosen]) if noisy else softmax(logits)[chosen]
        for e, s in zip(chosen, score, strict=True):
            out[t] += s * (w2[e] @ gelu(w1[e] @ token + b1[e]) + b2[e])
    return out


def linear(x: Float, p: dict[str, Float], key: str) -> Float:
    out: Float = x @ p[f"{key}.weight"].T + p[f"{key}.bias"]
    return out


def layer_norm(x: Float, p: dict[str, Float], key: str) -> Float:
    centred = x - x.mean(-1, keepdims=True)
    out: Float = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p[f"{key}.weight"] + p[f"{key}.bias"]
    return out


def softmax(x: Float) -> Float:
    e = np.exp(x - x.max(-1, keepdims=True))
    out: Float = e / e.sum(-1, keepdims=True)
    return out


def gelu(x: Float) -> Float:
    out: Float = x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    return out


def convolution(x: Float, p: dict[str, Float], key: str) -> Float:
    """3x3 with one row and column of zeros around."""
    _, h, w = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(p[f"{key}.bias"]), h, w)) + p[f"{key}.bias"][:, None, None]
    for dy in range(3):
        for dx in range(3):
            out += np.tensordot(p[f"{key}.weight"][:, :, dy, dx], padded[:, dy : dy + h, dx : dx + w], 1)
    return out


def doubled(x: Float) -> Float:
    """Bilinear, pixel centres at halves: each new pixel is 3/4 of the nearer and 1/4 of the other neighbour."""
    for axis in (1, 2):
        n = x.shape[axis]
        before = x.take([max(0, i - 1) for i in range(n)], axis)
        after = x.take([min(n - 1, i + 1) for i in range(n)], axis)
        pairs = np.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], axis + 1)
        x = pairs.reshape([2 * s if a == axis else s for a, s in enumerate(x.shape)])
    return x
