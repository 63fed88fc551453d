"""The lab of notebook 01 says what is true of the mask, in every state, quickly."""

import re

import pytest
import torch

from spp_lite import Sparsity
from spp_lite.teaching.labs.matrix import LINES, MaskLab, family, nearest


@pytest.fixture(scope="module")
def lab():
    return MaskLab(torch.randn(384, 128, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("pattern, ratio, text", [
    ("n:4", 0.1, "3:4"), ("n:4", 0.3, "3:4"), ("n:4", 0.4, "2:4"), ("n:4", 0.5, "2:4"), ("n:4", 0.9, "1:4"),
    ("n:8", 0.1, "7:8"), ("n:8", 0.6, "3:8"), ("n:8", 0.75, "2:8"), ("n:8", 0.9, "1:8"), ("row-wise", 0.3, "row:30%"),
    ("unstructured", 0.9, "90%"),
])  # fmt: skip
def test_the_nearest_pattern_is_taken(pattern, ratio, text):
    assert nearest(pattern, ratio) == Sparsity.parse(text)


def test_families_hold_the_multiples_of_an_eighth():
    assert [one.ratio for one in family("n:4")] == [0.25, 0.5, 0.75]
    for name in ("unstructured", "row-wise", "n:8"):
        assert [one.ratio for one in family(name)] == [k / 8 for k in range(1, 8)]


@pytest.mark.parametrize("pattern", [name for name in LINES if name != "random zeros"])
def test_the_read_out_tells_the_mask(lab, pattern):
    figure, text = lab.render(ratio=0.5, pattern=pattern, view="histogram")
    keep = nearest(pattern, 0.5).mask(lab.weight.abs())
    left = lab.weight * keep
    x = torch.randn(4096, 128, generator=torch.Generator().manual_seed(9))
    error = (x @ (lab.weight - left).T).square().sum() / (x @ lab.weight.T).square().sum()
    assert "24,576 of 49,152 weights become zero" in text and "asked for" not in text
    rows = (left == 0).float().mean(1)
    shares = "50% of every row" if (rows == 0.5).all() else f"{rows.min():.0%} to {rows.max():.0%} of a row"
    assert shares in text and ("every row" in text) == (pattern != "unstructured")
    assert abs(float(re.search(r"inputs: ([\d.]+)%", text)[1]) / 100 - error) < 0.01
    threshold = any("threshold" in label.get_text() for label in figure.axes[0].get_legend().get_texts())
    assert threshold == (pattern == "unstructured")


def test_a_ratio_that_n_of_m_cannot_have_is_told(lab):
    _, text = lab.render(ratio=0.3, pattern="n:4", view="mask")
    assert "30% asked for; the nearest n:4 is 3:4, 25.0% zeros" in text and "12,288 of 49,152" in text


def test_the_mask_view_shows_the_corner(lab):
    figure, _ = lab.render(ratio=0.5, pattern="n:4", view="mask")
    shown = figure.axes[0].get_images()[0].get_array()
    keep = Sparsity.parse("2:4").mask(lab.weight.abs())[:16, :32]
    assert (shown.mask == (~keep).numpy()).all()
    assert len(figure.axes[0].lines) == 32 // 4 - 1  # between the groups


def test_a_large_weight_is_cut_and_a_small_one_works():
    assert MaskLab(torch.randn(600, 1024)).weight.shape == (512, 512)
    MaskLab(torch.randn(8, 8).bfloat16()).selftest()


def test_every_state_works_and_a_move_is_quick(lab, drive):
    drive(lab)
