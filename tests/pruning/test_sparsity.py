"""Patterns: parsing round-trips, masks equal a slow stable sort, checks catch what is broken."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spp_lite.pruning.sparsity import Sparsity, SparsityError, find_pattern, fingerprint, measure


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
        (None, "cannot read"), (True, "cannot read"), ("-1", "cannot read sparsity '-1'"),
    ],
)  # fmt: skip
def test_nonsense_is_named(text, message):
    with pytest.raises(SparsityError, match=message):
        Sparsity.parse(text)


@given(st.one_of(st.floats(0, 0.999), st.sampled_from([f"{n}:{m}" for m in range(2, 9) for n in range(1, m)])))
def test_every_pattern_prints_as_it_is_read_and_sorts_by_its_zeros(text):
    one = Sparsity.parse(text)
    assert Sparsity.parse(str(one)) == one
    row = Sparsity(one.ratio, per_row=True)
    assert Sparsity.parse(str(row)) == row and row != Sparsity(one.ratio) < Sparsity((one.ratio + 1) / 2)
    assert sorted([Sparsity.parse(text) for text in ("75%", "2:4", "row:10%")])[0] == Sparsity(0.1, per_row=True)


def slow_lowest(row, count):
    """Keep-mask of one row by a stable ascending sort, as in the papers' code."""
    keep = torch.ones(len(row), dtype=torch.bool)
    keep[torch.sort(row, stable=True).indices[:count]] = False
    return keep


@pytest.mark.parametrize("wrong", [(0.5, 2, None), (0.3, 2, 4), (0.5, 2, 4, True)])
def test_a_pattern_made_by_hand_must_agree_with_its_ratio(wrong):
    with pytest.raises(SparsityError, match="n:m"):
        Sparsity(*wrong)


shapes = st.tuples(st.integers(1, 7), st.integers(1, 33))


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


def paper_n_of_m(scores, n, m):
    """The column loop of the papers' code, which drops what torch.topk takes, ties included."""
    drop = torch.zeros_like(scores, dtype=torch.bool)
    for i in range(0, scores.shape[1], m):
        drop.scatter_(1, i + torch.topk(scores[:, i : i + m], m - n, dim=1, largest=False).indices, True)
    return ~drop


@given(st.sampled_from([(2, 4), (4, 8), (2, 8), (1, 4), (1, 2), (3, 5), (7, 8), (9, 20)]), st.integers(1, 9),
       st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**30))  # fmt: skip
def test_n_of_m_masks_equal_the_papers_loop_with_ties(pattern, rows, groups, levels, seed):
    n, m = pattern
    scores = torch.randint(0, levels, (rows, groups * m), generator=torch.Generator().manual_seed(seed)).float()
    found = Sparsity.parse(f"{n}:{m}").mask(scores)
    assert torch.equal(found, paper_n_of_m(scores, n, m)) and (found.view(-1, m).sum(1) == n).all()


def test_large_masks_equal_the_slow_forms_across_chunks():
    scores = torch.randn(300, 1024, generator=torch.Generator().manual_seed(0)).abs().bfloat16()  # many ties
    assert torch.equal(Sparsity.parse("2:4").mask(scores), paper_n_of_m(scores.float(), 2, 4))
    expected = torch.stack([slow_lowest(row, 512) for row in scores])
    assert torch.equal(Sparsity.parse("row:50%").mask(scores), expected)
    assert torch.equal(Sparsity.parse("50%").mask(scores).flatten(), slow_lowest(scores.flatten(), scores.numel() // 2))


@given(shapes, st.floats(0, 0.99), st.integers(0, 2**30))
def test_rows_may_share_a_remainder_so_that_the_total_is_exact(shape, ratio, seed):
    sparsity, scores = Sparsity(ratio), torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    keep = sparsity.mask(scores, per_row=True, exact_total=True)
    zeros = (~keep).sum(1)
    assert zeros.sum() == sparsity.zeros(scores.numel())
    assert (zeros - sparsity.zeros(shape[1])).unique().tolist() in ([0], [1], [0, 1])


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


def test_what_wanda_rounds_down_in_every_row_passes_the_check():
    weight, sparsity = torch.rand(32, 32) + 0.1, Sparsity(0.37)
    sparsity.check(weight * sparsity.mask(weight, per_row=True))
    with pytest.raises(SparsityError, match="351 zeros in all, 352 asked"):
        bad = weight * sparsity.mask(weight, per_row=True)
        bad[0, (bad[0] == 0).nonzero()[0]] = 1
        sparsity.check(bad)


@pytest.mark.parametrize("text", ["50%", "row:50%", "2:4"])
def test_scores_that_are_not_numbers_are_named(text):
    scores = torch.rand(4, 8)
    Sparsity.parse(text).mask(scores - torch.inf)
    scores[1, 2] = torch.nan
    with pytest.raises(SparsityError, match="layer has scores that are not numbers"):
        Sparsity.parse(text).mask(scores, name="layer")


def test_patterns_are_found_and_shares_measured():
    weight = torch.rand(8, 32) + 0.1
    for text in ("2:4", "1:4", "4:8", "2:8"):
        masked = weight * Sparsity.parse(text).mask(weight)
        found = find_pattern(masked)
        assert found == Sparsity.parse(text)
        assert measure(masked) == Sparsity.parse(text).ratio
    assert find_pattern(weight) is None and find_pattern(weight * (torch.rand(8, 32) > 0.5)) is None


@given(st.integers(0, 2**20), st.sampled_from([(4, 6), (6, 4), (3, 8), (1, 24)]))
def test_a_fingerprint_tells_any_two_masks_apart_and_sees_nothing_else(seed, shape):
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=draw) * (torch.rand(shape, generator=draw) > 0.5)
    found = fingerprint({"a": weight, "b": weight})
    assert fingerprint([("b", 3 * weight), ("a", weight.half())]) == found
    flipped = weight.clone().view(-1)
    flipped[seed % 24] = 0 if flipped[seed % 24] else 1
    assert fingerprint({"a": weight, "b": flipped.view(shape)}) != found
    assert fingerprint({"a": weight, "b": weight.view(shape[::-1])}) != found or shape[0] == shape[1]


def test_a_fingerprint_sees_swaps_that_keep_the_zeros_of_every_row_and_column():
    one, other = torch.tensor([[0.0, 1, 1], [1, 0, 1]]), torch.tensor([[1.0, 0, 1], [0, 1, 1]])
    assert all(torch.equal((one == 0).sum(dim), (other == 0).sum(dim)) for dim in (0, 1))
    assert fingerprint({"a": one}) != fingerprint({"a": other})
