"""docs/scaling.md: its tables are what the formulas give, and the formulas are near what a small model takes."""

import re
from pathlib import Path

import pytest

from benchmarks import scaling

PAGE = (Path(__file__).parents[1] / "docs" / "scaling.md").read_text(encoding="utf-8")


def tables(text):
    """Every markdown table as it stands."""
    return re.findall(r"(?:^\|.*\|$\n?)+", text, re.M)


@pytest.mark.parametrize("table", scaling.TABLES, ids=lambda table: table.__name__)
def test_the_page_holds_what_the_formulas_give(table):
    assert table() in [found.strip() for found in tables(PAGE.replace("|---|", "| --- |"))]


def test_no_table_of_numbers_is_written_by_hand():
    computed = {table() for table in scaling.TABLES}
    others = [found.strip() for found in tables(PAGE) if found.strip() not in computed]
    assert [other.splitlines()[0] for other in others] == [
        "| what | operations a weight and token |",
        "| what | run by us? |",
    ]


@pytest.mark.parametrize("name", ["tiny", "SmolLM2-135M", "LLaMA-2-7B", "Llama-3-8B"])
def test_parameters_are_counted_on_the_model(name):
    counted = scaling.parameters(scaling.MODELS[name])
    assert counted == scaling.real.model_parameters(scaling.MODELS[name])
    assert f"{counted:,}" in PAGE and (name != "LLaMA-2-7B" or counted == 6_738_415_616)


def test_what_is_not_measured_is_marked():
    rows = [
        line
        for found in tables(PAGE)
        for line in found.splitlines()
        if line.split("|")[1].strip(" †") in scaling.MODELS
    ]
    assert rows and all(("†" in row) == (row.split("|")[1].strip(" †") not in scaling.RUN) for row in rows)
    assert set(scaling.MEASURED) == set(scaling.SHARES) == set(scaling.RUN)


def test_the_recorded_points_are_within_the_tolerance_of_the_page():
    assert f"**{scaling.TOLERANCE:.0%}".replace("%", " %") in PAGE
    for name, found in scaling.MEASURED.items():
        for said, got in zip(scaling.estimates(scaling.MODELS[name]).values(), found, strict=True):
            assert got is None or said == pytest.approx(got, rel=scaling.TOLERANCE)


@pytest.mark.filterwarnings("ignore")  # of libraries; not what this test is about
def test_the_tiny_model_takes_what_the_formulas_and_the_page_say():
    jobs = scaling.JOBS[0], *scaling.JOBS[2:]  # SparseGPT is slow under the profiler
    said, recorded = (
        scaling.estimates(scaling.MODELS["tiny"]),
        dict(zip(scaling.JOBS, scaling.MEASURED["tiny"], strict=True)),
    )
    for job, found in scaling.measure("tiny", jobs).items():
        assert found == pytest.approx(said[job], rel=scaling.TOLERANCE), job
        assert found == pytest.approx(recorded[job], rel=0.05), job


def test_operations_by_hand():
    config = scaling.MODELS["LLaMA-2-7B"]
    matrices = 32 * (4 * 4096**2 + 3 * 4096 * 11008) + 32000 * 4096
    assert scaling.operations(config, "score") == 2 * matrices
    assert scaling.operations(config, "full") == 6 * matrices
    assert scaling.operations(config, "frozen") == 4 * matrices < scaling.operations(config, "spp") < 6 * matrices


def test_the_files_that_the_page_names_exist():
    names = [f"--{option}" for option in re.findall(r"--([a-z_-]+)", PAGE)]
    assert {"--per_device_train_batch_size", "--gradient_checkpointing", "--flops"} <= set(names)
    for file in re.findall(r"configs/(?:accelerate|recipes)/[\w.-]+yaml", PAGE):
        assert (Path(__file__).parents[1] / file).is_file()
