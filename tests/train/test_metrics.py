"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgemtl.config import TaskConfig
from edgemtl.train.tasks import Meter, find
from edgemtl.train.tasks.edge import EdgeMeter
from edgemtl.train.tasks.normals import NormalsMeter, angular_error
from edgemtl.train.tasks.saliency import SaliencyMeter
from edgemtl.train.tasks.semseg import SemsegMeter


def make_meter(task: TaskConfig) -> Meter:
    return find(task.kind).meter(task, None, None)


def _logits(classes: torch.Tensor, channels: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(classes, channels).permute(0, 3, 1, 2).float()


def test_miou_by_hand() -> None:
    meter = SemsegMeter(4, ("a", "b", "c", "d"))
    # labels: a a a b, 255; predictions: a a b b, c → IoU a 2/3, b 1/2; c only at an ignored pixel; d nowhere
    meter.update(_logits(torch.tensor([[[0, 0, 1]]]), 4), torch.tensor([[[0, 0, 0]]]))
    meter.update(_logits(torch.tensor([[[1, 2]]]), 4), torch.tensor([[[1, 255]]]))
    score = meter.compute()
    assert score["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert score["miou_all"] == pytest.approx((2 / 3 + 1 / 2 + 0 + 0) / 4)
    assert score["iou"] == pytest.approx({"a": 2 / 3, "b": 1 / 2})
    assert score["pixel_accuracy"] == pytest.approx(3 / 4)
    assert score["miou_baseline"] == pytest.approx((3 / 4) / 2)  # "a" everywhere: IoU a 3/4, b 0


def test_a_class_that_is_only_predicted_counts_zero() -> None:
    meter = SemsegMeter(3)
    meter.update(_logits(torch.tensor([[[0, 2]]]), 3), torch.tensor([[[0, 0]]]))
    assert meter.compute()["miou"] == pytest.approx((1 / 2 + 0) / 2)


@pytest.mark.parametrize("degrees", [0.0, 0.01, 11.0, 45.0, 90.0, 179.9])
def test_angle(degrees: float) -> None:
    angle = math.radians(degrees)
    label = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1)
    pred = 7 * torch.tensor([math.sin(angle), 0.0, math.cos(angle)]).view(1, 3, 1, 1)
    assert float(angular_error(pred, label)) == pytest.approx(degrees, abs=1e-4)


def test_normals_by_hand() -> None:
    meter = NormalsMeter(torch.tensor([0.0, 1.0, 0.0]))
    label = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [255.0, 255.0, 255.0]]).t().reshape(1, 3, 1, 3)
    pred = torch.tensor([[0.0, 0.0, 5.0], [1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]).t().reshape(1, 3, 1, 3)
    meter.update(pred, label)
    score = meter.compute()
    assert score["mean_angle"] == pytest.approx(22.5, abs=1e-4)
    assert score["mean_angle_baseline"] == pytest.approx(90)
    assert (score["within_11.25"], score["within_22.5"], score["within_30"]) == (0.5, 0.5, 0.5)


def test_edge_f_by_hand() -> None:
    truth = torch.zeros(1, 1, 5, 9)
    truth[..., 2] = 1  # a vertical line
    logits = torch.full((1, 1, 5, 9), -9.0)
    logits[..., 3] = 9.0  # predicted one pixel beside it: within the tolerance
    logits[..., 7] = 0.0  # p = 0.5, far from it: wrong at thresholds up to 0.5
    meter = EdgeMeter(tolerance=1)
    meter.update(logits, truth)
    score = meter.compute()
    assert score["edge_f"] == 1.0
    assert score["threshold"] > 0.5
    assert score["edge_f_baseline"] == pytest.approx(2 * (3 / 9) / (1 + 3 / 9))
    exact = EdgeMeter(tolerance=0)
    exact.update(logits, truth)
    assert exact.compute()["edge_f"] == 0.0


def test_edge_ignores_invalid_pixels() -> None:
    truth = torch.zeros(1, 1, 4, 4)
    truth[..., 0] = 1
    logits = torch.where(truth > 0, 9.0, -9.0)
    truth[..., 3], logits[..., 3] = 255, 9.0
    meter = EdgeMeter()
    meter.update(logits, truth)
    assert meter.compute()["edge_f"] == 1.0


def test_median_angle() -> None:
    meter = NormalsMeter()
    angles = torch.tensor([3.0, 10.0, 80.0, 20.0, 12.5])
    pred = torch.stack([torch.sin(torch.deg2rad(angles)), torch.zeros(5), torch.cos(torch.deg2rad(angles))])
    label = torch.tensor([0.0, 0.0, 1.0]).view(3, 1).expand(3, 5)
    meter.update(pred.view(1, 3, 1, 5), label.reshape(1, 3, 1, 5))
    assert meter.compute()["median_angle"] == pytest.approx(12.5, abs=0.011)
    assert meter.compute()["mean_angle"] == pytest.approx(float(angles.mean()), abs=1e-4)


def _maps(rows: list[list[float]]) -> torch.Tensor:
    """Images of one row of pixels: [B, 1, 1, W]."""
    return torch.tensor(rows).view(len(rows), 1, 1, -1)


def test_saliency_by_hand() -> None:
    meter = SaliencyMeter()
    prob = _maps([[0.95, 0.95, 0.1, 0.55], [0.95, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.95]])
    truth = _maps([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 255.0]])
    meter.update(prob.logit(), truth)
    meter.update(_maps([[0.3] * 4]).logit(), torch.full((1, 1, 1, 4), 255.0))  # no label: counts nowhere
    score = meter.compute()
    # above 0.55 the first image is perfect, the second finds one of three, the third has nothing in both: IoU 1
    assert score["saliency_miou"] == pytest.approx((1 + 1 / 3 + 1) / 3)
    precision, recall = (1 + 1 + 0) / 3, (1 + 1 / 3 + 0) / 3
    assert score["saliency_max_f"] == pytest.approx(2 * precision * recall / (precision + recall))
    # pooled: best at 0.05 to 0.1, where everything is predicted: 5 of 11 right and 5 of 5 found, or above 0.55:
    # 3 of 3 right and 3 of 5 found
    assert score["saliency_max_f_pooled"] == pytest.approx(2 * 1 * (3 / 5) / (1 + 3 / 5))
    assert score["saliency_miou_baseline"] == pytest.approx((2 / 4 + 3 / 4 + 0) / 3)


@pytest.mark.parametrize("kind", ["semseg", "depth", "normals", "edge", "saliency"])
def test_a_set_without_labels_has_no_score(kind: str) -> None:
    channels = {"semseg": 3, "normals": 3}.get(kind, 1)
    meter = make_meter(TaskConfig(name="task", kind=kind, channels=channels))
    label = torch.full((1, 4, 4), 255) if kind == "semseg" else torch.full((1, channels, 4, 4), 255.0)
    meter.update(torch.randn(1, channels, 4, 4), label)
    numbers = [v for k, v in meter.compute().items() if not isinstance(v, dict) and k != "threshold"]
    main = numbers[:2]
    assert all(math.isnan(v) for v in main), numbers


def test_one_labelled_image_decides_alone() -> None:
    """An image without a label changes no metric."""
    for kind, channels in (("semseg", 3), ("depth", 1), ("normals", 3), ("edge", 1), ("saliency", 1)):
        config = TaskConfig(name="task", kind=kind, channels=channels)
        one, both = make_meter(config), make_meter(config)
        torch.manual_seed(0)
        pred = torch.randn(2, channels, 6, 6)
        label = torch.randint(0, 2, (2, channels, 6, 6)).float()
        label[1] = 255
        if kind == "semseg":
            label = label[:, 0].long()
        one.update(pred[:1], label[:1])
        both.update(pred, label)
        assert one.compute() == both.compute(), kind


def test_as_scikit_learn() -> None:
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    torch.manual_seed(1)
    logits, label = torch.randn(3, 5, 8, 9), torch.randint(0, 5, (3, 8, 9))
    label[:, :2] = 255
    meter = SemsegMeter(5)
    meter.update(logits, label)
    valid = label != 255
    want = sklearn.jaccard_score(label[valid], logits.argmax(1)[valid], average="macro")
    assert meter.compute()["miou"] == pytest.approx(want)

    logits, label = torch.randn(2, 5, 4, 4), torch.full((2, 4, 4), 255)
    meter.update(logits, label)  # nothing
    assert meter.compute()["miou"] == pytest.approx(want)
    assert int(meter.matrix.sum()) == int(valid.sum())

    logits, salient = torch.randn(4, 1, 8, 9), torch.randint(0, 2, (4, 1, 8, 9)).float()
    saliency = SaliencyMeter()
    saliency.update(logits, salient)
    prob = logits.double().sigmoid()
    pooled = max(sklearn.f1_score(salient.flatten(), prob.flatten() >= t / 20) for t in range(1, 20))
    assert saliency.compute()["saliency_max_f_pooled"] == pytest.approx(pooled)
    iou = [
        sum(sklearn.jaccard_score(salient[i].flatten(), prob[i].flatten() > t, zero_division=1) for i in range(4)) / 4
        for t in torch.linspace(0.2, 0.9, 15, dtype=torch.float64)
    ]
    assert saliency.compute()["saliency_miou"] == pytest.approx(max(iou))
