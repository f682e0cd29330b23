"""Images without a label of some task: they count nothing for it and stop nothing, from the files to the gradient."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgemtl.config import TaskConfig
from edgemtl.data.rooms.write import RoomSet, generate
from edgemtl.errors import ConfigError
from edgemtl.model import MultiTaskViT, preset
from edgemtl.train.config import LossConfig
from edgemtl.train.data import open_data, present
from edgemtl.train.evaluate import evaluate, torch_predictor, training_constants
from edgemtl.train.losses import task_losses

CONFIG = preset("micro")
KINDS = {"semseg": 4, "depth": 1, "normals": 3, "edge": 1, "saliency": 1}
TASKS = {k: TaskConfig(name=k, kind=k, channels=n) for k, n in KINDS.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_does_not_see_an_unlabelled_image(kind: str) -> None:
    torch.manual_seed(0)
    raw = torch.randn(2, KINDS[kind], 6, 8, requires_grad=True)
    label = torch.randint(0, 4, (2, 6, 8)) if kind == "semseg" else torch.rand(2, KINDS[kind], 6, 8).round()
    label[1] = 255
    both = task_losses({kind: raw}, {kind: label}, TASKS, LossConfig())[kind]
    both.backward()
    assert raw.grad is not None
    assert raw.grad[0].any()
    assert not raw.grad[1].any()
    alone = task_losses({kind: raw[:1]}, {kind: label[:1]}, TASKS, LossConfig())[kind]
    assert float(alone.detach()) == pytest.approx(float(both.detach()), rel=1e-6)


def test_flags_may_be_left_out() -> None:
    assert present({"image": torch.zeros(3, 3, 4, 4)}, "depth").tolist() == [True] * 3


@pytest.fixture(scope="module")
def disjoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of every split, two images have depth and no classes, two have classes and no depth."""
    root = tmp_path_factory.mktemp("disjoint") / "rooms"
    generate(RoomSet(seed=5, count=8, height=32, width=64, val_share=0.5), root)
    for split in ("train", "val"):
        ids = (root / f"gt_sets/{split}.txt").read_text().split()
        for name in ids[:2]:
            (root / f"segmentation/{name}.png").unlink()
        for name in ids[2:]:
            (root / f"depth/{name}.npy").unlink()
    return root


def test_disjoint_labels_train_and_evaluate_together(disjoint: Path) -> None:
    data = open_data(disjoint, "train", CONFIG, train=True)
    assert data.missing == {"semseg": 2, "depth": 2}
    batch = data.batch([0, 1, 2, 3])
    assert present(batch, "semseg").tolist() == [False, False, True, True]
    assert present(batch, "depth").tolist() == [True, True, False, False]
    torch.manual_seed(0)
    model = MultiTaskViT(CONFIG).train()
    losses = task_losses(model(batch["image"]), batch, {t.name: t for t in CONFIG.tasks}, LossConfig())
    total = sum(losses.values())
    assert isinstance(total, torch.Tensor)
    total.backward()
    assert all(float(loss.detach()) > 0 for loss in losses.values())
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())
    val = open_data(disjoint, "val", CONFIG)
    constants = training_constants(open_data(disjoint, "train", CONFIG), CONFIG)
    results = evaluate(torch_predictor(model), val, CONFIG, constants=constants)
    assert results["images"] == {"count": 4, "without_label": {"semseg": 2, "depth": 2}}
    assert all(results[t][m] == results[t][m] for t, m in (("semseg", "miou"), ("depth", "rmse")))


def test_a_batch_without_any_label_of_a_task_gives_zero_not_nan(disjoint: Path) -> None:
    batch = open_data(disjoint, "train", CONFIG).batch([0, 1])
    model = MultiTaskViT(CONFIG).train()
    losses = task_losses(model(batch["image"]), batch, {t.name: t for t in CONFIG.tasks}, LossConfig())
    assert float(losses["semseg"].detach()) == 0
    assert float(losses["depth"].detach()) > 0


def test_labels_of_another_kind_or_number_are_refused(disjoint: Path) -> None:
    wrong = CONFIG.model_copy(update={"tasks": (TaskConfig(name="depth", kind="edge", channels=1),)})
    with pytest.raises(ConfigError, match="labels depth as depth, the model's is edge"):
        open_data(disjoint, "val", wrong)
    few = CONFIG.model_copy(update={"tasks": (TaskConfig(name="semseg", kind="semseg", channels=5),)})
    with pytest.raises(ConfigError, match="labels 13 classes, the model's semseg has 5"):
        open_data(disjoint, "val", few)
