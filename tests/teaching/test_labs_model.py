"""The budget lab says what its table says; the figures and diagrams of notebook 03 draw what they are given."""

import itertools

import pandas as pd
import pytest

from spp_lite.teaching.labs.blocks import draw_block, draw_walk
from spp_lite.teaching.labs.budget import BudgetLab
from spp_lite.teaching.labs.model import (
    KINDS,
    best_by,
    plot_allocations,
    plot_drift,
    plot_errors,
    plot_methods,
    plot_scan,
    plot_two_models,
    plot_windows,
    predicted,
)

SIZES = dict(zip(KINDS, (20, 10, 10, 20, 60, 60, 60), strict=True))
COSTS = dict(zip(KINDS, (4.0, 4.0, 4.0, 4.0, 1.0, 1.0, 0.5), strict=True))


def scan():
    """Damage that grows in a straight line with the ratio."""
    rows = [(kind, r, r * SIZES[kind], r * COSTS[kind]) for kind in KINDS for r in (0.5, 0.7, 0.9)]
    found = pd.DataFrame(rows, columns=["kind", "ratio", "zeros", "damage"])
    return found.assign(price=found["damage"] / found["zeros"])


def test_a_prediction_lies_on_the_scanned_lines():
    found = predicted(scan(), {"q_proj": 0.25, "down_proj": 0.6, "up_proj": 0})
    assert found == pytest.approx({"q_proj": 1.0, "down_proj": 0.3, "up_proj": 0})


def test_the_read_out_counts_zeros_by_size_and_adds_up_damage():
    lab = BudgetLab(scan(), target=0.7)
    everywhere = dict.fromkeys(KINDS, 0.7)
    state = {**dict.fromkeys(KINDS[:4], 0.3), "gate_proj": 0.8, "up_proj": 0.8, "down_proj": 0.9}
    figure, text = lab.render(**state)
    assert text.startswith("70.0% zeros in all, budget 70%: exactly met.")  # (0.3 + 2 · 0.8 + 0.9) / 4
    assert "damage 6.85 nats per token, the most (1.20) from q_proj; as many zeros, uniform: 12.95." in text
    assert "exactly met" in figure.axes[0].get_title() and "6.85" in figure.axes[1].get_title()
    assert "exactly met" in lab.render(**everywhere)[1]
    assert "10.0 points too few" in lab.render(**dict.fromkeys(KINDS, 0.6))[1]
    assert "20.0 points too many" in lab.render(**dict.fromkeys(KINDS, 0.9))[1]
    assert "exactly met" in lab.render(**{**everywhere, "q_proj": 0.6, "k_proj": 0.9})[1]  # twice as large: half as far


def test_the_cheapest_setting_meets_the_budget_and_no_move_makes_it_cheaper():
    lab = BudgetLab(scan(), target=0.6)
    best = lab.cheapest()
    assert lab.reached(best) >= 0.6 - 1e-4 and set(lab.allocation(best)) == {f"*.{kind}" for kind in KINDS}
    least = lab.damage(best)
    for one, other in itertools.combinations(KINDS, 2):
        for a, b in itertools.product(lab.stops, repeat=2):
            state = best | {one: a, other: b}
            cost = sum(lab.costs[stop][kind] for kind, stop in state.items())
            assert lab.reached(state) < 0.6 - 1e-4 or cost >= least - 1e-9


def test_every_state_works_and_a_move_is_quick(drive):
    drive(BudgetLab(scan()))


def test_figures_show_their_numbers_and_their_titles_say_the_finding():
    left, right = plot_scan(scan()).axes
    assert "q_proj hurts most" in left.get_title() and "least in down_proj" in right.get_title()
    prices = {line.get_label(): line.get_ydata() for line in right.lines}
    assert list(prices["down_proj"]) == pytest.approx([1e6 * 0.5 / 60] * 3)
    drift = plot_drift([0.1, 0.1], [0.1, 0.3]).axes[0]
    assert [list(line.get_ydata()) for line in drift.lines] == [[0.1, 0.3], [0.1, 0.1]] and "3.0" in drift.get_title()
    windows = plot_windows({16: 9.0, 32: 5.0, 64: 7.0}).axes[0]
    assert list(windows.lines[0].get_ydata()) == [9, 5, 7] and "windows of 32" in windows.get_title()
    gains = pd.DataFrame([("OWL", -0.3, 0.1), ("spare MLP", 0.2, 0.5)], columns=["method", "mean", "half"])
    assert plot_allocations(gains).axes[0].get_title().endswith("same zeros: OWL")


def test_the_largest_error_of_a_linear_is_named():
    rows = [(f"model.layers.{b}.mlp.{kind}", 0.01 * b + 0.001 * i) for b in (0, 1) for i, kind in enumerate(KINDS)]
    axes = plot_errors(pd.DataFrame(rows, columns=["layer", "error"])).axes[0]
    assert "1.6%, in down_proj of block 1" in axes.get_title()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["block 0", "block 1"]


def test_criteria_are_ranked_by_each_yardstick_in_its_own_direction():
    rows = [("wanda", 0.5, 0.3, 40, 0.9), ("magnitude", 0.5, 0.2, 50, 0.8), ("sparsegpt", 0.5, 0.4, 60, 0.7)]
    table = pd.DataFrame(rows, columns=["method", "ratio", "damage", "perplexity", "accuracy"])
    assert [best_by(table, name, 0.5) for name in ("damage", "perplexity", "accuracy")] == [
        "magnitude",
        "wanda",
        "wanda",
    ]
    panels = plot_methods(table, {"damage": 0, "perplexity": 30, "accuracy": 1.0}).axes
    assert list(panels[2].lines[1].get_ydata()) == [90] and "Wanda is best" in panels[1].get_title()
    (axes,) = plot_two_models({"toy": (table, 30.0)}).axes
    assert "SparseGPT is worst at 50%" in axes.get_title() and "1.5 times" in axes.get_title()


def test_the_diagrams_name_all_seven_linears_and_the_three_steps():
    words = " ".join(text.get_text() for text in draw_block(dict.fromkeys(KINDS, (12, 34))).axes[0].texts)
    assert all(f"{kind}\n12 × 34" in words for kind in KINDS)
    steps = " ".join(text.get_text() for text in draw_walk().axes[0].texts)
    assert all(step in steps for step in ("1 calibrate", "2 prune", "3 feed"))
