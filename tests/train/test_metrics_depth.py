"""Depth figures against numbers worked out by hand, and what must not change them."""

from __future__ import annotations

import math

import pytest
import torch
from fake_rooms import FakeRooms
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.model import preset
from edgemtl.train.evaluate import evaluate, training_constants
from edgemtl.train.tasks.depth import NAMES, DepthMeter, boundary_f1


def row(*values: float) -> torch.Tensor:
    return torch.tensor([[list(values)]])[None]


def score(pred: torch.Tensor, label: torch.Tensor, **options: object) -> dict[str, float]:
    meter = DepthMeter(**options)  # type: ignore[arg-type]
    meter.update(pred, label)
    return meter.compute()


def test_rmse_is_pooled_over_pixels_and_also_given_per_image() -> None:
    meter = DepthMeter(mean=2.0)
    meter.update(row(3.0, 9.0), row(1.0, 255.0))  # one valid pixel, error 2
    meter.update(row(4.0, 4.0, 4.0), row(4.0, 4.0, 4.0))  # three, error 0
    found = meter.compute()
    assert found["rmse"] == pytest.approx(math.sqrt(4 / 4))
    assert found["rmse_per_image"] == pytest.approx((2 + 0) / 2)
    assert found["mae"] == pytest.approx(2 / 4)
    assert found["rmse_baseline"] == pytest.approx(math.sqrt((1 + 3 * 4) / 4))
    meter.update(row(4.0, 4.0, 4.0), row(6.0, 6.0, 6.0))
    found = meter.compute()
    assert found["rmse"] == pytest.approx(math.sqrt((4 + 12) / 7))
    assert found["rmse_per_image"] == pytest.approx((2 + 0 + 2) / 3)


def test_depth_baseline_without_a_mean_is_the_labels_deviation() -> None:
    assert score(row(0, 0), row(1, 3))["rmse_baseline"] == pytest.approx(1.0)


def test_ratios_by_hand() -> None:
    """Predictions 1.2, 1.5 and 1.9 times too far and 3 times too near; limits 1.25, 1.5625, 1.953."""
    found = score(row(1.2, 3.0, 3.8, 1.0), row(1.0, 2.0, 2.0, 3.0))
    assert [found[f"delta{n}"] for n in (1, 2, 3)] == pytest.approx([0.25, 0.5, 0.75])
    assert found["abs_rel"] == pytest.approx((0.2 + 0.5 + 0.9 + 2 / 3) / 4)
    assert found["log10"] == pytest.approx((math.log10(1.2) + math.log10(1.5) + math.log10(1.9) + math.log10(3)) / 4)
    exact = score(row(1.25, 1.24), row(1.0, 1.0))
    assert exact["delta1"] == pytest.approx(0.5)  # below the limit, not at it


def test_aligned_figures_by_hand() -> None:
    found = score(row(1.0, 2.0, 4.0), row(2.0, 4.0, 5.0))  # medians 2 and 4: scaled 2, 4, 8
    assert found["rmse_median_scaled"] == pytest.approx(math.sqrt(9 / 3))
    assert score(row(1, 1), row(1, 2))["si_log_rmse"] == pytest.approx(math.log(2) / 2)  # logs 0 and ln 2
    below = score(row(-3.0, -1.0, -1.0), row(1.0, 2.0, 4.0))  # counts as 1 mm everywhere: then 2, 2, 2
    assert below["rmse_median_scaled"] == pytest.approx(math.sqrt((1 + 0 + 4) / 3))
    both = DepthMeter()
    both.update(torch.cat([row(1, 1), row(3, 3)]), torch.cat([row(1, 2), row(7, 7)]))
    assert both.compute()["si_log_rmse"] == pytest.approx(math.log(2) / 4)  # a mean over images


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("pred", "label", "want"),
    [
        ((3, 3, 6, 6), (1, 1, 2, 2), 1.0),  # the same contour at another scale
        ((1, 2, 2, 2), (1, 1, 2, 2), 0.0),  # one pixel beside it
        ((2, 2, 1, 1), (1, 1, 2, 2), 0.0),  # the other side in front
        ((1, 2, 4, 4), (1, 1, 2, 2), 2 / 3),  # found 2, true 1, right 1
        ((1, 1, 1, 2), (1, 1.5, 3, 6), 1 / 2),  # found 1, true 3, right 1
        # Below ratio 1.1, at 1.05, 1.0722 and 1.0944 of the ten (sum 11.5), one of two contours is found: F1 2/3.
        ((1, 1, 2), (1, 1.1, 2.2), 1 - (1.05 + 1.05 + 0.2 / 9 + 1.05 + 0.4 / 9) / 11.5 / 3),
        # The truth has contours at the three lowest ratios only, the others are left out.
        ((1, 1.1), (1, 1.1), 1.0),
        ((1, 9, 1, 2), (1, 255, 1, 2), 1.0),  # pairs with an invalid pixel are none
        ((0, 0, -1, 5), (1, 1, 1, 2), 1.0),  # what is not above 0 counts as 1 mm
    ],
)
def test_boundary_f1_by_hand(pred: tuple[float, ...], label: tuple[float, ...], want: float, turned: bool) -> None:
    a, b = row(*pred)[0, 0], row(*label)[0, 0]
    assert boundary_f1(a.T if turned else a, b.T if turned else b) == pytest.approx(want, abs=1e-6)


def test_images_without_contours_count_nothing_for_the_boundary() -> None:
    assert math.isnan(boundary_f1(row(1, 2)[0, 0], row(3, 3)[0, 0]))
    meter = DepthMeter()
    meter.update(torch.cat([row(1, 2), row(1, 2), row(1, 1)]), torch.cat([row(3, 3), row(2, 4), row(2, 4)]))
    assert meter.compute()["boundary_f1"] == pytest.approx((1 + 0) / 2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 9999), scale=st.floats(0.2, 5))
def test_what_does_not_depend_on_scale(seed: int, scale: float) -> None:
    torch.manual_seed(seed)
    label = torch.rand(2, 1, 6, 8) * 5 + 0.5
    label[0, 0, :2] = 255
    pred = torch.rand(2, 1, 6, 8) * 5 + 0.5
    one, other = score(pred, label), score(pred * scale, label)
    for name in ("rmse_median_scaled", "si_log_rmse", "boundary_f1"):
        assert other[name] == pytest.approx(one[name], rel=1e-4), name
    assert one["delta1"] <= one["delta2"] <= one["delta3"] <= 1
    assert 0 <= one["boundary_f1"] <= 1
    mirrored = score(pred.flip(-1), label.flip(-1))
    assert mirrored == pytest.approx(one, rel=1e-6)
    perfect = score(label, label)
    assert [perfect[n] for n in ("rmse", "abs_rel", "log10", "si_log_rmse", "rmse_median_scaled")] == [0] * 5
    assert [perfect[n] for n in ("delta1", "boundary_f1")] == pytest.approx([1, 1])


def test_the_mean_image_as_baseline() -> None:
    image = torch.tensor([[2.0, 4.0]])
    found = score(row(1, 1), row(2, 3), mean=3.0, image=image)
    assert found["rmse_mean_image_baseline"] == pytest.approx(math.sqrt(1 / 2))
    assert found["abs_rel_mean_image_baseline"] == pytest.approx((1 / 3) / 2)
    assert found["delta1_mean_image_baseline"] == pytest.approx(1 / 2)
    assert found["rmse_baseline"] == pytest.approx(math.sqrt(1 / 2))
    assert "rmse_mean_image_baseline" not in score(row(1, 1), row(2, 3))
    larger = score(row(1, 1, 1, 1), row(2, 2, 4, 4), image=image)  # resized to the labels
    assert larger["rmse_mean_image_baseline"] == pytest.approx(math.sqrt((0.5**2 + 0.5**2) / 4))


def test_the_mean_image_is_that_of_the_training_labels() -> None:
    class Slanted(FakeRooms):
        def batch(self, indices: list[int]) -> dict[str, torch.Tensor]:
            out = super().batch(indices)
            out["depth"] = torch.arange(1.0, 33)[:, None].expand(len(indices), 1, 32, 64).clone()
            out["depth"][0, 0, :, 0] = 255
            out["depth"][:, 0, 0] = 255
            return out

    config, data = preset("micro"), Slanted(5, augment=False)
    constants = training_constants(data, config)
    mean, image = constants["depth"]
    torch.testing.assert_close(image[1:, 5], torch.arange(2.0, 33))
    assert image[0, 5] == pytest.approx(mean)  # nowhere labelled: the mean
    results = evaluate(
        lambda image: {t.name: torch.zeros(1, t.channels, 32, 64) for t in config.tasks},
        data,
        config,
        constants=constants,
    )
    assert results["depth"]["rmse_mean_image_baseline"] == pytest.approx(0, abs=1e-5)
    assert results["depth"]["rmse_baseline"] > 5
    named = {k for k in results["depth"] if not k.endswith("_baseline")} - {"rmse"}
    assert named == set(NAMES)
