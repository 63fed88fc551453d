"""Labs: every state works, errors are kept, the keyboard steps through options."""

import ipywidgets
import pytest
from matplotlib.figure import Figure

from spp_lite.teaching.widgets import Lab, choice, show, slider


class Squares(Lab):
    def controls(self):
        return {"n": slider("n", [1, 2, 3]), "kind": choice("kind", ["a", "b"])}

    def render(self, n, kind):
        if (n, kind) == (3, "b"):
            raise ZeroDivisionError("three and b")
        figure = Figure(figsize=(2, 1))
        figure.add_subplot().plot([n])
        return figure, f"{n} squared is {n * n} < 10"


def test_moving_a_control_changes_text_and_picture():
    lab = Squares()
    before = lab.picture.value
    assert "1 squared is 1 &lt; 10" in lab.text.value
    lab.inputs["n"].value = 2
    assert "2 squared is 4" in lab.text.value and lab.picture.value != before
    assert bytes(lab.picture.value).startswith(b"\x89PNG")


def test_an_error_in_a_callback_is_kept_shown_and_raised():
    lab = Squares()
    lab.inputs["n"].value = 3
    lab.inputs["kind"].value = "b"
    assert len(lab.errors) == 1 and "ZeroDivisionError: three and b" in lab.text.value
    with pytest.raises(ZeroDivisionError, match="three and b"):
        Squares().selftest()


def test_selftest_returns_to_the_present_state():
    lab = Squares()
    lab.render = lambda n, kind: (Figure(figsize=(1, 1)), "fine")
    lab.inputs["n"].value = 2
    lab.selftest()
    assert lab.state == {"n": 2, "kind": "a"}


def test_a_lab_of_many_controls_is_driven_through_every_value_in_few_moves():
    class Many(Squares):
        def controls(self):
            return {name: slider(name, [1, 2, 3]) for name in "abcde"}

        def render(self, **state):
            drawn.append(tuple(state.values()))
            return Figure(figsize=(1, 1)), "fine"

    drawn: list = []
    Many().selftest()
    seen = set(drawn)
    assert len(drawn) == len(seen) + 1, "nothing is drawn twice but the state that it returns to"
    assert {(1, 1, 1, 1, 1), (3, 3, 3, 3, 3), (1, 1, 3, 1, 1), (3, 1, 3, 3, 3)} <= seen and len(seen) < 100


def test_sliders_wait_for_the_hand_to_let_go():
    assert slider("x", [1, 2]).continuous_update is False
    assert isinstance(slider("x", [1, 2], value=2), ipywidgets.SelectionSlider)


def test_static_prints_text_and_shows_a_picture(capsys):
    Squares().static(n=3)
    assert "3 squared is 9" in capsys.readouterr().out
    show(Figure(figsize=(1, 1)), alt="an empty figure")


class Settled(Squares):
    def controls(self):
        return {"n": slider("n", [1, 2]), "kind": choice("kind", ["a"])}


def test_a_control_that_cannot_move_is_not_shown(monkeypatch):
    shown = []
    monkeypatch.setattr("spp_lite.teaching.widgets.display", shown.append)
    lab = Settled()
    lab.show()
    assert lab.inputs["n"] in shown[0].children and lab.inputs["kind"] not in shown[0].children
    lab.selftest()
    assert lab.state == {"n": 1, "kind": "a"}
