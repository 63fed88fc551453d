"""What is promised of an adapter holds for every form: each test here runs with either as SppConfig's default."""

import pytest

from spp_lite import SppConfig
from spp_lite.adapter.config import FORMS


def pytest_generate_tests(metafunc):
    """Tests of s, which the direct form lacks, are marked `scaling`."""
    forms = ["spp"] if metafunc.definition.get_closest_marker("scaling") else FORMS
    metafunc.parametrize("form", forms, indirect=True)


@pytest.fixture(autouse=True)
def form(request, monkeypatch):
    """The form that SppConfig() has in this test."""
    defaults = tuple(request.param if value == "spp" else value for value in SppConfig.__init__.__defaults__)
    monkeypatch.setattr(SppConfig.__init__, "__defaults__", defaults)
    return request.param
