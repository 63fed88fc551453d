"""Criteria against slow, obvious references in the papers' form."""

import pytest
import torch

from spp_lite.pruning.criteria import inverse_factor, magnitude_scores, sparsegpt, wanda_scores
from spp_lite.pruning.sparsity import Sparsity, SparsityError


def reference_sparsegpt(weight, inputs, ratio, pattern, block, damping=0.01):
    """The loop of the authors' code, column by column (SparseGPT, Algorithm 1)."""
    weight = weight.clone()
    _rows, columns = weight.shape
    hessian = 2 / len(inputs) * inputs.T @ inputs
    dead = torch.diag(hessian) == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    hessian += damping * torch.mean(torch.diag(hessian)) * torch.eye(columns)
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    for first in range(0, columns, block):
        last = min(first + block, columns)
        part, upper = weight[:, first:last].clone(), inverse[first:last, first:last]
        result, errors = torch.zeros_like(part), torch.zeros_like(part)
        mask = torch.zeros_like(part, dtype=torch.bool)
        if pattern is None:
            scores = part**2 / torch.diag(upper).reshape(1, -1) ** 2
            order = torch.sort(scores.flatten(), stable=True).indices[: int(scores.numel() * ratio + 1e-6)]
            mask.view(-1)[order] = True
        for i in range(last - first):
            column, d = part[:, i], upper[i, i]
            if pattern is not None and i % pattern[1] == 0:
                here = slice(i, i + pattern[1])
                scores = part[:, here] ** 2 / torch.diag(upper)[here].reshape(1, -1) ** 2
                drop = torch.topk(scores, pattern[1] - pattern[0], dim=1, largest=False).indices
                mask.scatter_(1, i + drop, True)
            kept = column.clone()
            kept[mask[:, i]] = 0
            result[:, i] = kept
            error = (column - kept) / d
            part[:, i:] -= error[:, None] @ upper[i, i:][None, :]
            errors[:, i] = error
        weight[:, first:last] = result
        weight[:, last:] -= errors @ inverse[first:last, last:]
    return weight


@pytest.mark.parametrize("sparsity", ["50%", "75%", "2:4", "1:4", "4:8"])
@pytest.mark.parametrize("shape", [(24, 48), (5, 40)])
def test_sparsegpt_is_the_authors_loop(sparsity, shape):
    draw = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=draw)
    inputs = torch.randn(200, shape[1], generator=draw) @ torch.randn(shape[1], shape[1], generator=draw)
    inputs[:, 3] = 0  # a dead input
    wanted = Sparsity.parse(sparsity)
    factor, dead = inverse_factor(2 / len(inputs) * inputs.T @ inputs)
    found = sparsegpt(weight, factor, dead, wanted, block=16)
    expected = reference_sparsegpt(weight, inputs, wanted.ratio, (wanted.n, wanted.m) if wanted.m else None, 16)
    assert dead.tolist() == [i == 3 for i in range(shape[1])]
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    wanted.check(found)


def test_sparsegpts_update_makes_up_for_what_its_mask_takes():
    draw = torch.Generator().manual_seed(2)
    weight, inputs = torch.randn(32, 64, generator=draw), torch.randn(500, 64, generator=draw)
    inputs = inputs @ torch.randn(64, 64, generator=draw)
    factor, dead = inverse_factor(2 / 500 * inputs.T @ inputs)
    new = sparsegpt(weight, factor, dead, Sparsity(0.5))
    masked = weight * (new != 0)
    assert (inputs @ (new - weight).T).norm() < 0.9 * (inputs @ (masked - weight).T).norm()


@pytest.mark.parametrize("pattern", ["2:4", "50%", "row:75%"])
def test_what_sparsegpt_finds_pruned_it_does_not_fill(pattern):
    draw = torch.Generator().manual_seed(3)
    weight, inputs = torch.randn(16, 48, generator=draw), torch.randn(300, 48, generator=draw)
    inputs = inputs @ torch.randn(48, 48, generator=draw)
    weight *= torch.rand(16, 48, generator=draw) > 0.6
    new = sparsegpt(weight, *inverse_factor(2 / 300 * inputs.T @ inputs), Sparsity.parse(pattern), block=16)
    assert not new[weight == 0].any() and float((new == 0).float().mean()) >= Sparsity.parse(pattern).ratio
    assert new[weight != 0].any()


def test_a_hessian_that_is_not_positive_definite_is_named():
    with pytest.raises(
        SparsityError, match="q_proj: the Hessian is not positive definite at damping 1: check the cali"
    ):
        inverse_factor(-torch.eye(4), damping=0.0, name="q_proj")


def test_wanda_prefers_inputs_that_are_large():
    weight = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.bfloat16)
    assert wanda_scores(weight, torch.tensor([9.0, 1.0, 1.0])).tolist() == [[9.0, 2.0, 3.0]]
    assert magnitude_scores(weight).dtype == torch.float32 == wanda_scores(weight, torch.ones(3)).dtype
