"""Every public name stands in an example of a docstring, and every example runs as it is printed."""

import doctest
import inspect
from importlib import import_module

import pytest

ROOMS = [import_module(name) for name in ("spp_lite", "spp_lite.pruning", "spp_lite.adapter", "spp_lite.experiment")]
PUBLIC = {name: getattr(room, name) for room in ROOMS for name in room.__all__}


def examples(thing) -> doctest.DocTest:
    """The example of one docstring, in a namespace of its own: a reader copies it as it is."""
    thing = inspect.unwrap(thing) if callable(thing) else thing
    found = doctest.DocTestParser().get_doctest(inspect.getdoc(thing) or "", {}, thing.__name__, None, 0)
    assert found is not None
    return found


WITH_EXAMPLE = {name: found for name, one in {**PUBLIC, **{r.__name__: r for r in ROOMS}}.items()
                if (found := examples(one)).examples}  # fmt: skip


@pytest.mark.parametrize("name", WITH_EXAMPLE)
def test_an_example_runs_as_it_is_printed(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(WITH_EXAMPLE[name], out=said.append)
    assert not result.failed, "".join(said)


def test_every_public_name_stands_in_one():
    shown = " ".join(one.source + one.want for found in WITH_EXAMPLE.values() for one in found.examples)
    assert {name for name in PUBLIC if name not in shown} == set()
