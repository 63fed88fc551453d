"""What a watcher sees of the tests: a line per finished file and slow test, the time left, and tables at the end.

Runs where the reports come together: in pytest itself, or in what starts pytest-xdist's workers. No time fails a test.
"""

import re
import time
from collections import Counter

import pytest

SLOW = 10  # seconds from which a test gets lines of its own
EXECUTED = re.compile(r"(?:^notebooks/|test_exercises.*\[|test_real_model.*\[|test_jupyterlab.*\[)(\d\d)_")


def usual(name: str, before: dict, budgets: dict, otherwise: float = 0.3) -> float:
    """The seconds that a test takes: as last here, else the notebook's, else otherwise."""
    number = EXECUTED.search(name)
    return before.get(name, budgets[number[1]]["measured"] if number else otherwise)


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class Progress:
    """Weighs every test by the time it took last here, else by the notebook's budget or a third of a second."""

    def __init__(self, config, budgets):
        self.config, self.budgets = config, budgets
        self.cache = getattr(config, "cache", None)
        self.before = self.cache.get("spp/seconds", {}) if self.cache else {}
        self.began, self.expected, self.left = time.monotonic(), {}, Counter()
        self.seconds, self.done, self.notes = Counter(), 0.0, []

    def begin(self, names):
        if self.expected or self.config.option.collectonly:
            return
        for name in names:
            self.expected[name] = usual(name, self.before, self.budgets)
            self.left[name.split("::")[0]] += 1
        self.say(f"{len(self.expected)} tests in {len(self.left)} files")

    def say(self, text):
        done, total = self.done, max(sum(self.expected.values()), 1e-9)
        gone = time.monotonic() - self.began
        left = f", about {clock(gone * (total - done) / done)} left" if done else ""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        terminal.ensure_newline()
        terminal.write_line(f"[{100 * done / total:3.0f} %] {text} ({clock(gone)} gone{left})", flush=True)

    def pytest_collection_finish(self, session):
        self.begin([item.nodeid for item in session.items])

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids):
        self.begin(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report):
        if report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
            return "passed", "", ""  # counted, but no dot: the lines below say more

    def pytest_runtest_logstart(self, nodeid):
        if self.expected.get(nodeid, 0) >= SLOW:
            self.say(f"starts {nodeid}, which took {clock(self.expected[nodeid])}")

    def pytest_runtest_logreport(self, report):
        file, name = report.nodeid.split("::")[0], report.nodeid
        self.seconds[name] += report.duration
        self.notes += report.user_properties if report.when == "call" else []
        if report.failed:
            self.say(f"FAILED {name}")
        if report.when != "teardown":
            return
        self.done += self.expected.get(name, 0)
        self.left[file] -= 1
        if self.left[file] == 0:
            took = sum(seconds for test, seconds in self.seconds.items() if test.split("::")[0] == file)
            self.say(f"{file}: {sum(one.startswith(f'{file}::') for one in self.seconds)} tests, {took:.0f} s")
        elif self.seconds[name] >= SLOW:
            self.say(f"{name}: {self.seconds[name]:.0f} s")

    def pytest_sessionfinish(self):
        if self.cache and self.seconds:
            self.cache.set("spp/seconds", {**self.before, **{name: round(s, 2) for name, s in self.seconds.items()}})

    def pytest_terminal_summary(self, terminalreporter):
        for title in dict.fromkeys(title for title, _ in self.notes):
            terminalreporter.section(title)
            for line in sorted(line for kind, line in self.notes if kind == title):
                terminalreporter.write_line(line)
