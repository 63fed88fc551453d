"""Each check accepts right variants and says what is wrong with plausible wrong answers; the answers are in answers/."""

import importlib
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from traitlets.config import Config

from spp_lite.teaching import checks, yours
from spp_lite.teaching.checks import common

MODULES = [
    importlib.import_module(f"answers.{p.stem}") for p in sorted((Path(__file__).parent / "answers").glob("*.py"))
]
RIGHT = [case for module in MODULES for case in module.RIGHT]
WRONG = [case for module in MODULES for case in module.WRONG]


@pytest.mark.parametrize("check, function", RIGHT)
def test_right_variants_pass(check, function):
    assert ": right" in check(function)


@pytest.mark.parametrize("check, function, message", WRONG)
def test_wrong_answers_are_told_why(check, function, message):
    with pytest.raises(checks.CheckFailed, match=message):
        check(function)


@pytest.mark.parametrize("name", [name for name, check in vars(checks).items() if hasattr(check, "library")])
def test_the_library_passes_its_own_check_and_a_blank_falls_back_on_it(name, capsys):
    check = getattr(checks, name)
    assert re.fullmatch(rf"Ex {name[3:]}: right, \d+ cases? tried\.", check(check.library))
    mine = yours(check.library, check)
    assert (mine if check.gives is None else mine.__wrapped__) is check.library and "your " in capsys.readouterr().out
    assert yours(lambda *_: None, check) is check.library and "not right yet" in capsys.readouterr().out


def test_a_failed_check_shows_one_sentence_in_a_notebook():
    shell = InteractiveShell(config=Config({"HistoryManager": {"enabled": False}}))
    with capture_output() as seen:
        shell.run_cell("from spp_lite.teaching import checks; checks.ex_00b(lambda *given: 7.0)")
    assert "Ex 00b" in seen.stdout and "Traceback" not in seen.stdout and len(seen.stdout.strip().splitlines()) == 1


def test_every_check_meets_two_right_and_five_wrong_answers():
    right, wrong = (Counter(case[0].__name__ for case in cases) for cases in (RIGHT, WRONG))
    every = [name for name in vars(checks) if name.startswith("ex_")]
    assert len(every) >= 20 and all(right[name] >= 2 and wrong[name] >= 5 for name in every)


@pytest.mark.parametrize("name", [name for name, check in vars(checks).items() if getattr(check, "gives", None)])
def test_what_a_notebook_goes_on_with_is_what_the_library_gives(name):
    check = getattr(checks, name)

    def library(*arguments):
        right = check.library(*arguments)
        found = check.gives(right)
        assert type(found) is type(right)
        parts = zip(found, right, strict=True) if isinstance(right, tuple) else [(found, right)]
        assert all(one.dtype == two.dtype and torch.equal(one, two) for one, two in parts)
        return right

    check(library)


def test_a_reason_that_explains_one_wrong_answer_by_chance_is_not_told():
    """1 − x is 0.5 where x is; only where a reason explains most wrong answers is it the reader's mistake."""

    @common.check(library=float)
    def ex_99a(function):
        for x in (0.5, 0.2, 0.1):
            reasons = [(1 - x, "that is the rest"), (x + 1, "one too many"), (None, "cannot show here")]
            common.compare("Ex 99a", common.answer("Ex 99a", function, x), 2 * x, reasons, case=f"x = {x}")

    with pytest.raises(common.CheckFailed, match=r"\(x = 0.5\): you return 0.5\."):
        ex_99a(lambda x: 0.5)
    with pytest.raises(common.CheckFailed, match=r"\(x = 0.5\): that is the rest\."):
        ex_99a(lambda x: 1 - x)
    assert ex_99a(lambda x: 2 * x) == "Ex 99a: right, 3 cases tried."
