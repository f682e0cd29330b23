"""Only what the active tasks need is mapped, views copy nothing, and unmapping gives the memory back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemtl.bundle.reader import Bundle
from edgemtl.errors import BudgetError
from edgemtl.runtime.mapping import Segment, WeightMap, check_budget, segments, sizes, span
from edgemtl.runtime.residency import Residency, Share, areas, attribute, measure, present_bytes


@pytest.fixture
def opened(plain: Path) -> Iterator[Bundle]:
    with Bundle.open(plain) as bundle:
        yield bundle


def mapped_here(path: Path) -> int:
    """Bytes of this process's mappings of `path`, as the kernel lists them."""
    total = 0
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(str(path)):
            low, high = (int(part, 16) for part in line.split()[0].split("-"))
            total += high - low
    return total


def test_what_tasks_need(micro: Any) -> None:
    experts = {Segment("experts.1", e) for e in "234"} | {Segment("experts.3", e) for e in "015"}
    depth = segments(micro.config, ["depth"])
    assert depth == {Segment("trunk"), Segment("task.depth")} | experts
    both = segments(micro.config, ["depth", "semseg"])
    assert both - depth == {Segment("task.semseg"), *(Segment("experts.1", e) for e in "01")} | {
        Segment("experts.3", e) for e in "23"
    }
    assert len([s for s in segments(micro.config, ["edge"]) if s.tensor]) == 12  # no declared path: all


def test_views_are_the_weights_without_a_copy(opened: Bundle, micro: Any) -> None:
    weights = WeightMap(opened)
    weights.map(segments(micro.config, ["depth"]))
    ranges = weights.ranges()
    for part, tensor in [("trunk", "cls_token"), ("task.depth", "head.out"), ("experts.3", "5")]:
        view = weights.get(part, tensor)
        np.testing.assert_array_equal(view, micro.weights[part][tensor])
        assert view.ctypes.data % 64 == 0
        assert any(low <= view.ctypes.data < high for _, low, high in ranges)
    with pytest.raises(KeyError):
        weights.get("experts.1", "0")  # not of depth's path


def test_unmapping_really_unmaps(opened: Bundle, micro: Any) -> None:
    weights = WeightMap(opened)
    everything = segments(micro.config, micro.config.task_names)
    assert mapped_here(opened.path) == 0
    weights.map(everything)
    pages = sum(-(-span(opened, s)[1] // 4096) * 4096 for s in everything)
    assert mapped_here(opened.path) == pages
    kept = segments(micro.config, ["depth"])
    weights.unmap(weights.held - kept)
    assert weights.held == kept
    assert mapped_here(opened.path) == sum(-(-span(opened, s)[1] // 4096) * 4096 for s in kept)
    weights.unmap(weights.held)
    assert mapped_here(opened.path) == 0


def test_a_view_left_over_delays_unmapping_safely(opened: Bundle) -> None:
    weights = WeightMap(opened)
    weights.map([Segment("trunk")])
    view = weights.get("trunk", "cls_token")
    value = view[0]
    weights.unmap([Segment("trunk")])
    assert weights.held == frozenset()
    assert [s for s, _, _ in weights.ranges()] == ["trunk"]  # still counted
    assert view[0] == value
    del view
    weights.unmap([])
    assert weights.ranges() == []
    assert mapped_here(opened.path) == 0


def test_mapping_outlives_a_replaced_file(opened: Bundle, micro: Any) -> None:
    opened.path.unlink()
    opened.path.write_bytes(b"other")
    weights = WeightMap(opened)
    weights.map([Segment("trunk")])
    np.testing.assert_array_equal(weights.get("trunk", "cls_token"), micro.weights["trunk"]["cls_token"])


def test_a_refused_mapping_leaves_none(opened: Bundle, micro: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import mmap

    from edgemtl.errors import BundleError

    real, calls = mmap.mmap, 0

    def third_fails(*args: Any, **kwargs: Any) -> mmap.mmap:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(12, "Cannot allocate memory")
        return real(*args, **kwargs)

    monkeypatch.setattr(mmap, "mmap", third_fails)
    weights = WeightMap(opened)
    with pytest.raises(BundleError, match="cannot map"):
        weights.map(segments(micro.config, ["depth"]))
    assert weights.ranges() == []
    assert mapped_here(opened.path) == 0


def test_only_touched_pages_are_resident(opened: Bundle, micro: Any) -> None:
    weights = WeightMap(opened)
    weights.map(segments(micro.config, ["depth"]))
    before = measure(weights.ranges(), 0)
    assert before.origin == "smaps"
    assert set(before.groups) == {"trunk", "depth", "experts"}
    assert before.resident == 0
    assert weights.get("experts.3", "5").sum() != 0
    after = measure(weights.ranges(), 0)
    slot = span(opened, Segment("experts.3", "5"))[1]
    assert after.groups["experts"].resident == slot  # the whole slot, read ahead, and no neighbour
    assert after.groups["trunk"].resident == 0
    assert after.mapped == before.mapped


def test_budget_shows_the_sum(opened: Bundle, micro: Any) -> None:
    tasks = ("depth", "semseg")
    need = sizes(opened, segments(micro.config, tasks))
    total = sum(need.values())
    check_budget(opened, tasks, total)
    check_budget(opened, tasks, None)
    with pytest.raises(BudgetError) as caught:
        check_budget(opened, tasks, total - 1)
    text = str(caught.value)
    assert re.search(r"trunk [\d.]+ kB \+ .*gates and head.* \+ experts [\d.]+ kB = [\d.]+ kB, which is more", text)
    assert f"({total} > {total - 1} bytes)" in text


class TestAttribution:
    """The text of smaps, with the kernel's habits, without the kernel."""

    def test_lines(self) -> None:
        smaps = (
            "7f00-8f00 rw-p 00001000 fd:00 42   /x y.edgemtl\nSize:  4 kB\nRss:   12 kB\nPss: 1 kB\n"
            "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\nSize: 4 kB\nRss:  0 kB\n"
        )
        assert list(areas(smaps)) == [(0x7F00, 0x8F00, 12288), (0xFFFFFFFFFF600000, 0xFFFFFFFFFF601000, 0)]

    def given(self, lines: list[tuple[int, int, int]], present: Any) -> Residency:
        ranges = [("trunk", 0x10000, 0x12000), ("experts", 0x12000, 0x13000)]
        return attribute(ranges, lines, 99, present)

    def test_one_line_each(self) -> None:
        got = self.given([(0x12000, 0x13000, 4096), (0x10000, 0x12000, 8192), (0, 0x1000, 77)], None)
        assert got.groups == {"trunk": Share(8192, 8192), "experts": Share(4096, 4096)}
        assert (got.resident, got.mapped, got.exact, got.model) == (12288, 12288, True, 99)

    def test_merged_lines_are_told_apart_page_by_page(self) -> None:
        asked = []

        def present(low: int, high: int) -> int:
            asked.append((low, high))
            return 4096 if low == 0x10000 else 0

        got = self.given([(0xF000, 0x14000, 16384)], present)
        assert asked == [(0x10000, 0x12000), (0x12000, 0x13000)]
        assert got.groups == {"trunk": Share(4096, 8192), "experts": Share(0, 4096)}
        assert got.exact

    def test_merged_lines_without_pagemap_are_an_upper_bound(self) -> None:
        got = self.given([(0xF000, 0x14000, 6000)], lambda low, high: None)
        assert got.groups == {"trunk": Share(6000, 8192), "experts": Share(4096, 4096)}
        assert not got.exact
        assert "upper bound" in str(got)

    def test_a_split_mapping_is_added_up(self) -> None:
        got = self.given([(0x10000, 0x11000, 4096), (0x11000, 0x12000, 100), (0x12000, 0x13000, 0)], None)
        assert got.groups["trunk"] == Share(4196, 8192)

    def test_nothing_known(self) -> None:
        for lines in ([], [(0x1000, 0x10000, 77)], [(0x13000, 0x14000, 77)]):
            got = self.given(lines, None)
            assert got.groups == {"trunk": Share(0, 8192), "experts": Share(0, 4096)}


def test_pagemap_agrees_with_smaps(opened: Bundle) -> None:
    weights = WeightMap(opened)
    weights.map([Segment("trunk")])
    ((_, low, high),) = weights.ranges()
    assert present_bytes(low, high) == 0
    weights.get("trunk", "pos_embed").sum()
    assert present_bytes(low, high) == measure(weights.ranges(), 0).resident


def test_not_measured_without_smaps(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    def refused(*_: Any, **__: Any) -> Any:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(builtins, "open", refused)
    got = measure([("trunk", 0, 4096)], 7)
    monkeypatch.undo()
    assert (got.origin, got.resident, got.mapped) == ("not measured", None, 4096)
    assert "not measured (/proc/self/smaps: No such file" in str(got)
