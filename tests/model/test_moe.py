"""Gate, top-k and expert evaluation against plain loops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgemtl.model.gates import Routing, balance_loss, gate_logits, route
from edgemtl.model.moe import MoE, sparse_experts


def naive_top_k(row: list[float], k: int) -> list[int]:
    return sorted(range(len(row)), key=lambda e: (-row[e], e))[:k]


@settings(deadline=None)
@given(
    rows=st.integers(1, 6),
    logits=st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0]), min_size=5, max_size=5),
    k=st.integers(1, 5),
)
def test_ties_go_to_the_lower_index(rows: int, logits: list[float], k: int) -> None:
    routing = route(torch.tensor([logits] * rows), k)
    assert routing.expert.tolist() == [naive_top_k(logits, k)] * rows
    torch.testing.assert_close(routing.score, torch.tensor([logits]).softmax(-1)[0][routing.expert])


def test_scores_are_not_renormalised_unless_asked() -> None:
    logits = torch.randn(4, 6)
    assert (route(logits, 2).score.sum(-1) < 1).all()
    torch.testing.assert_close(route(logits, 2, renormalise=True).score.sum(-1), torch.ones(4))


def test_mask_keeps_routing_inside_the_path() -> None:
    mask = torch.tensor([False, True, False, True, True])
    logits = torch.tensor([[9.0, 0.0, 8.0, 2.0, 1.0]])
    routing = route(logits, 2, mask=mask)
    assert routing.expert.tolist() == [[3, 4]]
    torch.testing.assert_close(
        routing.prob,
        torch.tensor([[0.0, 0, 0, 0, 0]]).index_copy(
            1, torch.tensor([1, 3, 4]), torch.tensor([[0.0, 2.0, 1.0]]).softmax(-1)
        ),
    )


@settings(deadline=None)
@given(n=st.integers(1, 9), experts=st.integers(1, 5), data=st.data())
def test_sparse_experts_equals_a_loop_over_tokens(n: int, experts: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, experts))
    index = torch.tensor([data.draw(st.permutations(range(experts)))[:k] for _ in range(n)])
    g = torch.Generator().manual_seed(n)
    x, score = torch.randn(n, 4, generator=g).double(), torch.rand(n, k, generator=g).double()
    w1, b1 = torch.randn(experts, 6, 4, generator=g).double(), torch.randn(experts, 6, generator=g).double()
    w2, b2 = torch.randn(experts, 4, 6, generator=g).double(), torch.randn(experts, 4, generator=g).double()
    want = torch.zeros_like(x)
    for t in range(n):
        for j in range(k):
            e = index[t, j]
            want[t] += score[t, j] * (w2[e] @ F.gelu(w1[e] @ x[t] + b1[e]) + b2[e])
    torch.testing.assert_close(sparse_experts(x, index, score, w1, b1, w2, b2), want)


def test_exact_logits_do_not_depend_on_the_other_experts() -> None:
    tokens, w = torch.randn(31, 192), torch.randn(192, 16)
    whole = gate_logits(tokens, w, exact=True)
    for ids in ([3], [0, 15], [1, 4, 9, 10, 11]):
        assert torch.equal(gate_logits(tokens, w[:, ids], exact=True), whole[:, ids])


def cv2(values: Tensor) -> float:
    return float(values.var() / (values.mean() ** 2 + 1e-10))


def test_balance_loss_by_hand() -> None:
    prob = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.8, 0.1]])
    routing = Routing(torch.tensor([[0], [1]]), torch.tensor([[0.5], [0.8]]), prob)
    want = cv2(torch.tensor([0.5, 0.8, 0.0])) + cv2(torch.tensor([1.0, 1.0, 0.0]))
    assert abs(float(balance_loss(routing)) - want) < 1e-6
    mask = torch.tensor([True, True, False])
    want = cv2(torch.tensor([0.5, 0.8])) + 0.0
    assert abs(float(balance_loss(routing, mask)) - want) < 1e-6


def test_training_gradient_reaches_gate_and_experts() -> None:
    moe = MoE(8, 8, 4, 2, ("a",), {"a": (0, 1, 3)}).train()
    tokens = torch.randn(10, 8)
    r = moe.route(tokens, "a")
    (moe.apply_experts(tokens, r.expert, r.score).square().sum() + balance_loss(r, moe.path_mask("a"))).backward()
    gate = moe.w_gate("a").grad
    assert gate is not None
    assert gate.abs().sum() > 0
    bank = moe.experts.htoh4.weight.grad
    assert bank is not None
    assert bank[2].abs().sum() == 0  # outside the path: never touched
    assert bank[[0, 1, 3]].abs().sum() > 0
