"""The replay reads out what the table says; the button trains, shows its progress, and keeps its errors."""

import copy
import itertools
import time

import pandas as pd
import pytest
import torch

from spp_lite import load, load_alpaca, prune
from spp_lite.recover.data import tokenize_records
from spp_lite.teaching import checks
from spp_lite.teaching.labs import training
from spp_lite.teaching.labs.alpaca import plot_real_rates, plot_schedule, rows_of
from spp_lite.teaching.labs.lora_runs import smollm2
from spp_lite.teaching.labs.training import LiveLab, ReplayLab, plot_labels, plot_losses


def runs():
    rows = [(0, 0.0, 0, None, 0.5)]
    for lr, drop, gain in ((0.01, 0.1, 0.02), (0.1, 0.3, 0.08), (0.5, 0.4, -0.05)):
        for step in (4, 8, 12, 16):
            accuracy = 0.5 + gain * step / 8 if step in (8, 16) else None
            rows.append((4, lr, step, 2.5 - drop * step / 4, accuracy))
    return pd.DataFrame(rows, columns=["r", "lr", "step", "loss", "accuracy"])


@pytest.fixture(scope="module")
def parts():
    model, tokenizer = load("tiny")
    prune(model, None, "75%", method="magnitude", progress=False)
    return model, tokenizer, tokenize_records(load_alpaca("tiny").select(range(64)), tokenizer)


def test_the_replay_reads_the_table():
    lab = ReplayLab(runs())
    figure, text = lab.render(lr=0.1, step=8, r=4)
    assert "r = 4, learning rate 0.1, step 8 of 16: training loss 1.90, validation accuracy 58.0%" in text
    assert "pruned, not trained: 50.0%" in text
    assert "0.5 has the lowest loss and 0.1 the highest accuracy" in text
    left, right = figure.axes
    assert max(left.lines[1].get_xdata()) == 8, "the curve ends at the chosen step"
    assert right.lines[1].get_ydata() == pytest.approx([50, 58])
    assert [line.get_linewidth() for line in left.lines] == [1.2, 3.0, 1.2], "the chosen run is the thick one"


def test_every_state_of_the_replay_works_and_a_move_is_quick(drive):
    drive(ReplayLab())  # the committed runs


def test_the_committed_runs_are_whole():
    table = ReplayLab().table
    assert len(table.groupby(["r", "lr"])) == 16
    assert (table.groupby(["r", "lr"])["step"].agg(["min", "max", "size"]) == [4, 160, 40]).all(axis=None)
    assert (table.groupby(["r", "lr"])["accuracy"].count() == 5).all()


def test_the_button_trains_for_its_time(parts):
    lab = LiveLab(*parts, seconds=0.5, batch_size=8)
    picture = lab.picture.value
    assert "not trained yet" in lab.text.value
    start = time.monotonic()
    lab.button.click()
    assert 0.5 < time.monotonic() - start < 60
    assert not lab.errors and not lab.button.disabled
    assert f"{len(lab.runs[5e-2])} steps" in lab.text.value and lab.picture.value != picture


def test_training_lowers_the_loss_and_leaves_the_model_alone(parts):
    model, tokenizer, rows = parts
    before = copy.deepcopy(model.state_dict())
    lab = LiveLab(model, tokenizer, rows, batch_size=8)
    lab.train_live(300, steps=16)
    losses = lab.runs[5e-2]
    assert len(losses) == 16 and sum(losses[-4:]) < sum(losses[:4])
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_the_picture_grows_while_it_trains(parts, monkeypatch):
    monkeypatch.setattr(
        training.time, "monotonic", itertools.count().__next__
    )  # every look at the clock takes a second
    lab = LiveLab(*parts, batch_size=8)
    seen = []
    monkeypatch.setattr(lab, "_update", lambda change=None: seen.append(len(lab.runs[5e-2])))
    lab.train_live(300, steps=4)
    assert seen[:4] == [1, 2, 3, 4]


def test_an_error_while_training_is_kept_shown_and_raised(parts):
    model, tokenizer, rows = parts
    lab = LiveLab(model, tokenizer, rows.remove_columns("labels"))
    lab.train_live(0.1)
    assert len(lab.errors) == 1 and "color:#b00" in lab.text.value and not lab.button.disabled
    with pytest.raises(type(lab.errors[0])):
        lab.selftest(1)


def test_the_selftest_trains_at_two_rates(parts):
    lab = LiveLab(*parts, batch_size=8)
    lab.selftest(steps=5)
    assert [len(losses) for losses in lab.runs.values()] == [5, 5], "so many on a slow machine, too"
    assert lab.state == {"lr": 5e-2} and "5 steps" in lab.render(5e-2)[1]


def test_learned_tokens_stand_out():
    figure = plot_labels(["<s>", "▁Say", "▁yes", "<0x0A>", "▁yes", "</s>"], [-100, -100, -100, -100, 7, 2])
    texts = figure.axes[0].texts
    assert [text.get_weight() for text in texts] == ["normal"] * 4 + ["bold"] * 2
    assert texts[3].get_text() == "↵" and texts[1].get_text() == " Say"
    many = plot_labels(["▁a"] * 300, [-100] * 299 + [2]).axes[0].texts
    assert len(many) == 121 and many[-1].get_weight() == "bold"


def test_curves_are_smoothed_over_the_window():
    (line,) = plot_losses({0.05: [4.0, 2.0, 0.0]}, window=2).axes[0].lines
    assert list(line.get_ydata()) == [4.0, 3.0, 1.0] and list(line.get_xdata()) == [1, 2, 3]
    assert line.get_label() == "0.05"
    assert (
        plot_losses({0.05: [4.0, 2.0], 0.5: [1.0, 3.0]}).axes[0].get_title()
        == "Learning rate 0.05 is lowest at the end"
    )


def test_rows_by_the_readers_functions_are_the_librarys_rows():
    _, tokenizer = load("tiny")
    records = load_alpaca("tiny").select(range(40))
    rows = rows_of(records, tokenizer, checks.ex_06a.library, checks.ex_06b.library)
    assert list(rows) == list(tokenize_records(records, tokenizer))
    short = rows_of(records, tokenizer, checks.ex_06a.library, checks.ex_06b.library, cutoff=60)
    with pytest.warns(UserWarning, match="fill the cutoff"):
        assert list(short) == list(tokenize_records(records, tokenizer, cutoff=60))


def test_the_schedules_figure_tells_whether_they_agree():
    assert "does what" in plot_schedule([0.0, 1.0], [0.0, 1.0]).axes[0].get_title()
    assert "up to 50%" in plot_schedule([0.5, 1.0], [0.0, 1.0]).axes[0].get_title()


def test_the_real_models_rates_are_read_from_its_table():
    table = smollm2("rates.csv")
    cell = table[table["method"] == "spp"]
    title = plot_real_rates(table).axes[0].get_title()
    assert f"{cell.loc[cell['alpaca_loss'].idxmin(), 'lr']:g} ends lowest" in title
    assert "largest" not in plot_real_rates(table.assign(alpaca_loss=table["lr"])).axes[0].get_title()
