"""Labs: pure render(**state) functions behind sliders. Works with ipywidgets 7.7.1 and 8.

A lab never swallows an error: what a callback raises is kept in `lab.errors`, shown in red, and raised by `selftest()`.
Knows nothing about models; the labs themselves are in `labs/`.
"""

import html
import io
import itertools
from collections.abc import Sequence

import ipywidgets as widgets
from IPython.display import display
from matplotlib.figure import Figure


def show(figure: Figure, alt: str) -> None:
    """Display a figure as an ordinary picture with a text for those who cannot see it."""
    display({"image/png": _png(figure, 100), "text/plain": alt}, metadata={"image/png": {"alt": alt}}, raw=True)


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def slider(label: str, options: Sequence, value=None) -> widgets.SelectionSlider:
    """One position per option: every state can be tested, and the keyboard's arrow keys step through them."""
    return widgets.SelectionSlider(
        options=list(options), value=options[0] if value is None else value, description=label,
        continuous_update=False, style={"description_width": "initial"}, layout={"width": "420px"},
    )  # fmt: skip


def choice(label: str, options: Sequence, value=None) -> widgets.Dropdown:
    """A drop-down menu."""
    return widgets.Dropdown(
        options=list(options), value=options[0] if value is None else value, description=label,
        style={"description_width": "initial"}, layout={"width": "420px"},
    )  # fmt: skip


class Guess:
    """A prediction that is kept: a line to type in, or a menu of `options`; `compare()` shows it beside what came out."""

    def __init__(self, question: str, options: Sequence[str] = ()) -> None:
        about = {"style": {"description_width": "initial"}, "layout": {"width": "640px"}}
        if options:
            self.box = widgets.Dropdown(options=["", *options], description="my guess", **about)
        else:
            self.box = widgets.Text(description="my guess", placeholder=question, continuous_update=False, **about)
        self.question = question
        display(self.box)

    def compare(self, outcome: str) -> None:
        """Print question, guess and outcome under one another."""
        print(f"{self.question}\n  you guessed: {self.box.value or '(nothing yet)'}\n  it came out: {outcome}")


class Lab:
    """Sliders above a picture and a line of text.

    A subclass sets `height` (pixels), returns its controls by name from `controls()`, and computes from their values in
    `render(**state) -> (Figure, text)`, which must be pure and take less than 150 ms.
    """

    height = 380

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self._held = False  # while selftest() moves several controls at once
        self.inputs = self.controls()
        self.picture = widgets.Image(format="png", layout={"height": f"{self.height}px", "object_fit": "contain"})
        self.text = widgets.HTML()
        for control in self.inputs.values():
            control.observe(self._update, names="value")
        self._update()

    def controls(self) -> dict[str, widgets.Widget]:
        """Name → control with discrete `options`."""
        raise NotImplementedError

    def render(self, **state) -> tuple[Figure, str]:
        """The picture and the read-out for one state of the controls."""
        raise NotImplementedError

    @property
    def state(self) -> dict:
        """The controls' present values."""
        return {name: control.value for name, control in self.inputs.items()}

    def _update(self, _change=None) -> None:
        if self._held:
            return
        try:
            figure, text = self.render(**self.state)
            self.picture.value = _png(figure, 72)
            self.text.value = f"<p style='font-size:15px'>{html.escape(text)}</p>"
        except Exception as error:  # a callback's exception would vanish in the kernel's log
            self.errors.append(error)
            self.text.value = f"<p style='color:#b00'>{html.escape(f'{type(error).__name__}: {error}')}</p>"

    def show(self) -> None:
        """Display the lab, without controls that cannot move. A saved notebook keeps no widgets: show the same picture
        below with `static()`."""
        moving = [control for control in self.inputs.values() if len(control.options) > 1]
        display(widgets.VBox([*moving, self.picture, self.text]))

    def static(self, **state) -> None:
        """The picture and text of one state (default: the present one) as ordinary output."""
        figure, text = self.render(**{**self.state, **state})
        show(figure, alt=text)
        print(text)

    def _move(self, state: dict) -> None:
        """Set the controls; one picture is drawn, at the event of the first that moves, which is set last."""
        first, *others = [name for name, value in state.items() if self.inputs[name].value != value] or [None]
        self._held = True
        for name in others:
            self.inputs[name].value = state[name]
        self._held = False
        if first:
            self.inputs[first].value = state[first]

    def selftest(self) -> None:
        """Drive the controls through first, middle and last values and raise what went wrong: all combinations of up to
        three controls; of more, each control on its own while the others stand first, in the middle or last."""
        before, names = self.state, list(self.inputs)
        stops = []
        for control in self.inputs.values():
            values = [option[1] if isinstance(option, tuple) else option for option in control.options]
            stops.append([values[0], values[len(values) // 2], values[-1]])
        if len(stops) <= 3:
            states = itertools.product(*stops)
        else:
            states = (
                (*others[:i], value, *others[i + 1 :])
                for others in zip(*stops, strict=True)
                for i, values in enumerate(stops)
                for value in values
            )
        for values in [*dict.fromkeys(states), tuple(before.values())]:
            self._move(dict(zip(names, values, strict=True)))
        if self.errors:
            raise self.errors[0]
