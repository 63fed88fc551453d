"""Each check accepts right variants and says what is wrong with plausible wrong answers; the answers are in answers/."""

import importlib
from collections import Counter
from pathlib import Path

import pytest

from spp_lite.teaching import checks

MODULES = [
    importlib.import_module(f"answers.{p.stem}") for p in sorted((Path(__file__).parent / "answers").glob("*.py"))
]
RIGHT = [case for module in MODULES for case in module.RIGHT]
WRONG = [case for module in MODULES for case in module.WRONG]


@pytest.mark.parametrize("check, function", RIGHT)
def test_right_variants_pass(check, function):
    assert check(function).endswith("right.")


@pytest.mark.parametrize("check, function, message", WRONG)
def test_wrong_answers_are_told_why(check, function, message):
    with pytest.raises(checks.CheckFailed, match=message):
        check(function)


def test_every_check_meets_two_right_and_five_wrong_answers():
    right, wrong = (Counter(case[0].__name__ for case in cases) for cases in (RIGHT, WRONG))
    every = [name for name in vars(checks) if name.startswith("ex_")]
    assert len(every) >= 20 and all(right[name] >= 2 and wrong[name] >= 5 for name in every)
