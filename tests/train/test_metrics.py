"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edgemtl.train.metrics import DepthMeter, EdgeMeter, NormalsMeter, SemsegMeter, angular_error


def _logits(classes: torch.Tensor, channels: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(classes, channels).permute(0, 3, 1, 2).float()


def test_miou_by_hand() -> None:
    meter = SemsegMeter(4, ("a", "b", "c", "d"))
    # labels: a a a b, 255; predictions: a a b b, c → IoU a 2/3, b 1/2; c only at an ignored pixel; d nowhere
    meter.update(_logits(torch.tensor([[[0, 0, 1]]]), 4), torch.tensor([[[0, 0, 0]]]))
    meter.update(_logits(torch.tensor([[[1, 2]]]), 4), torch.tensor([[[1, 255]]]))
    score = meter.compute()
    assert score["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert score["iou"] == pytest.approx({"a": 2 / 3, "b": 1 / 2})
    assert score["pixel_accuracy"] == pytest.approx(3 / 4)
    assert score["miou_baseline"] == pytest.approx((3 / 4) / 2)  # "a" everywhere: IoU a 3/4, b 0


def test_a_class_that_is_only_predicted_counts_zero() -> None:
    meter = SemsegMeter(3)
    meter.update(_logits(torch.tensor([[[0, 2]]]), 3), torch.tensor([[[0, 0]]]))
    assert meter.compute()["miou"] == pytest.approx((1 / 2 + 0) / 2)


def test_rmse_is_pooled_over_pixels() -> None:
    meter = DepthMeter(mean=2.0)
    meter.update(torch.tensor([[[[3.0, 9.0]]]]), torch.tensor([[[[1.0, 255.0]]]]))  # one valid pixel, error 2
    meter.update(torch.tensor([[[[4.0, 4.0, 4.0]]]]), torch.full((1, 1, 1, 3), 4.0))  # three, error 0
    score = meter.compute()
    assert score["rmse"] == pytest.approx(math.sqrt(4 / 4))  # a mean over images would give (2 + 0) / 2, too: see mae
    assert score["mae"] == pytest.approx(2 / 4)
    assert score["rmse_baseline"] == pytest.approx(math.sqrt((1 + 3 * 4) / 4))


def test_depth_baseline_without_a_mean_is_the_labels_deviation() -> None:
    meter = DepthMeter()
    meter.update(torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 3.0]]]]))
    assert meter.compute()["rmse_baseline"] == pytest.approx(1.0)


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
