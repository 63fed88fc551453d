"""Patterns: parsing round-trips, masks equal a slow stable sort, checks catch what is broken."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spp_lite.sparsity import Sparsity, SparsityError, find_pattern, measure


@pytest.mark.parametrize(
    "text, canonical, ratio",
    [
        ("50%", "50%", 0.5), (0.75, "75%", 0.75), ("0.75", "75%", 0.75), ("unstructured:0.75", "75%", 0.75),
        ("row:30%", "row:30%", 0.3), ("2:4", "2:4", 0.5), ("2:8", "2:8", 0.75), ("1:4", "1:4", 0.75), (0, "0%", 0.0),
        ("62.5%", "62.5%", 0.625), (".5", "50%", 0.5),
    ],
)  # fmt: skip
def test_parsing_prints_canonically_and_round_trips(text, canonical, ratio):
    parsed = Sparsity.parse(text)
    assert str(parsed) == canonical and parsed.ratio == pytest.approx(ratio)
    assert Sparsity.parse(str(parsed)) == parsed == Sparsity.parse(parsed) and len({parsed, Sparsity.parse(text)}) == 1


@pytest.mark.parametrize(
    "text, message",
    [
        ("4:2", "keeps 4 of 2: n:m needs 0 < n < m"), ("4:4", "0 < n < m"), ("0:4", "0 < n < m"),
        ("100%", r"sparsity 1 is outside \[0, 1\)"), (1.5, r"1.5 is outside"), (-0.1, r"-0.1 is outside"),
        ("half", "cannot read sparsity 'half': use '50%'"), ("", "cannot read"), (float("nan"), "nan is outside"),
        (None, "cannot read"), (True, "cannot read"),
    ],
)  # fmt: skip
def test_nonsense_is_named(text, message):
    with pytest.raises(SparsityError, match=message):
        Sparsity.parse(text)


def slow_lowest(row, count):
    """Keep-mask of one row by a stable ascending sort, as in the papers' code."""
    keep = torch.ones(len(row), dtype=torch.bool)
    keep[torch.sort(row, stable=True).indices[:count]] = False
    return keep


shapes = st.tuples(st.integers(1, 7), st.integers(1, 33))


@settings(deadline=None)
@given(shapes, st.floats(0, 0.99), st.integers(1, 6), st.integers(0, 2**30), st.booleans())
def test_masks_equal_a_stable_sort_with_ties(shape, ratio, levels, seed, per_row):
    scores = torch.randint(0, levels, shape, generator=torch.Generator().manual_seed(seed)).float()
    sparsity = Sparsity(ratio)
    found = sparsity.mask(scores, per_row=per_row)
    if per_row:
        expected = torch.stack([slow_lowest(row, sparsity.zeros(shape[1])) for row in scores])
    else:
        expected = slow_lowest(scores.flatten(), sparsity.zeros(scores.numel())).view(shape)
    assert torch.equal(found, expected)


@settings(deadline=None)
@given(st.sampled_from([(2, 4), (4, 8), (2, 8), (1, 4), (1, 2), (3, 5), (7, 8)]), st.integers(1, 5), st.integers(1, 6),
       st.integers(1, 6), st.integers(0, 2**30))  # fmt: skip
def test_n_of_m_masks_equal_a_stable_sort_of_each_group(pattern, rows, groups, levels, seed):
    n, m = pattern
    scores = torch.randint(0, levels, (rows, groups * m), generator=torch.Generator().manual_seed(seed)).float()
    expected = torch.stack([slow_lowest(group, m - n) for group in scores.view(-1, m)]).view(scores.shape)
    assert torch.equal(Sparsity.parse(f"{n}:{m}").mask(scores), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [10, 100, 1000])
def test_counts_are_exact_in_every_type(dtype, count):
    scores = torch.rand(3, count).to(dtype)
    for percent in range(0, 100, 7):
        keep = Sparsity.parse(f"{percent}%").mask(scores, per_row=True)
        assert (keep.logical_not().sum(1) == percent * count // 100).all()


def test_check_accepts_what_mask_made_and_catches_what_is_broken():
    weight = torch.rand(6, 16) + 0.1
    for text in ("50%", "2:4", "1:4", "row:75%"):
        sparsity = Sparsity.parse(text)
        good = weight * sparsity.mask(weight)
        sparsity.check(good, "layer")
        bad = good.clone()
        bad[2, (bad[2] == 0).nonzero()[0]] = 1.0
        with pytest.raises(SparsityError, match=f"layer breaks {text}: "):
            sparsity.check(bad, "layer")
    with pytest.raises(SparsityError, match=r'layer has 10 inputs, not a multiple of 4: use a pattern "n:m".*skip='):
        Sparsity.parse("2:4").mask(torch.rand(2, 10), name="layer")


def test_patterns_are_found_and_shares_measured():
    weight = torch.rand(8, 32) + 0.1
    for text in ("2:4", "1:4", "4:8", "2:8"):
        masked = weight * Sparsity.parse(text).mask(weight)
        found = find_pattern(masked)
        assert found == Sparsity.parse(text)
        assert measure(masked) == Sparsity.parse(text).ratio
    assert find_pattern(weight) is None and find_pattern(weight * (torch.rand(8, 32) > 0.5)) is None
