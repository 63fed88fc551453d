"""The budget lab says what its table says; the figures of notebook 03 draw what they are given."""

import pandas as pd
import pytest

from spp_lite.teaching.labs.model import (
    KINDS,
    BudgetLab,
    plot_allocations,
    plot_drift,
    plot_methods,
    plot_scan,
    predicted,
)

SIZES = dict(zip(KINDS, (20, 10, 10, 20, 60, 60, 60), strict=True))
COSTS = dict(zip(KINDS, (4.0, 4.0, 4.0, 4.0, 1.0, 1.0, 0.5), strict=True))


def scan():
    """Damage that grows in a straight line with the ratio."""
    rows = [(kind, r, r * SIZES[kind], r * COSTS[kind]) for kind in KINDS for r in (0.5, 0.7, 0.9)]
    return pd.DataFrame(rows, columns=["kind", "ratio", "zeros", "damage"])


def test_a_prediction_lies_on_the_scanned_lines():
    found = predicted(scan(), {"q_proj": 0.25, "down_proj": 0.6, "up_proj": 0})
    assert found == pytest.approx({"q_proj": 1.0, "down_proj": 0.3, "up_proj": 0})


def test_the_read_out_counts_zeros_by_size_and_adds_up_damage():
    lab = BudgetLab(scan(), target=0.7)
    _, text = lab.render(**{"attention": 0.3, "gate, up": 0.8, "down": 0.9})
    assert text.startswith("70.0% zeros in all, budget 70%: exactly met.")  # (0.3 + 2 · 0.8 + 0.9) / 4
    assert "attention 7.5; gate, up 40.0; down 22.5." in text
    assert "damage 6.85 nats per token, mostly from attention; as many zeros, uniform: 12.95." in text
    assert "exactly met" in lab.render(**dict.fromkeys(lab.inputs, 0.7))[1]
    assert "10.0 points too few" in lab.render(**dict.fromkeys(lab.inputs, 0.6))[1]
    assert "20.0 points too many" in lab.render(**dict.fromkeys(lab.inputs, 0.9))[1]


def test_the_cheapest_setting_meets_the_budget_and_none_that_does_is_cheaper():
    lab = BudgetLab(scan(), target=0.6)
    best = lab.cheapest()
    assert lab.reached(best) >= 0.6 - 1e-4
    for attention in lab.stops:
        for mlp in lab.stops:
            for down in lab.stops:
                state = {"attention": attention, "gate, up": mlp, "down": down}
                assert lab.reached(state) < 0.6 - 1e-4 or lab.damage(state) >= lab.damage(best) - 1e-9
    assert set(lab.allocation(best)) == {f"*.{kind}" for kind in KINDS}


def test_every_state_works_and_a_move_is_quick(drive):
    drive(BudgetLab(scan()))


def test_figures_show_their_numbers():
    figure = plot_scan(scan(), 0.7)
    bars = {kind: bar.get_width() for kind, bar in zip(KINDS, figure.axes[1].patches, strict=True)}
    assert bars == pytest.approx({kind: 1e6 * COSTS[kind] / SIZES[kind] for kind in KINDS})
    lines = plot_drift([0.1, 0.1], [0.1, 0.3]).axes[0].lines
    assert [list(line.get_ydata()) for line in lines] == [[0.1, 0.3], [0.1, 0.1]]
    rows = [(method, ratio, ratio, 40, 0.9) for method in ("magnitude", "wanda") for ratio in (0.5, 0.7)]
    table = pd.DataFrame(rows, columns=["method", "ratio", "damage", "perplexity", "accuracy"])
    panels = plot_methods(table, {"damage": 0, "perplexity": 30, "accuracy": 1.0}).axes
    assert list(panels[2].lines[1].get_ydata()) == [90, 90] and list(panels[0].lines[2].get_xdata()) == [50, 70]
    shares = pd.DataFrame([("uniform", 2.0, 0.7)], columns=["allocation", "damage", "accuracy"])
    assert plot_allocations(shares).axes[1].patches[0].get_width() == pytest.approx(70)
