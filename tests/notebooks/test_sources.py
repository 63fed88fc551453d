"""Every notebook has the shape that readers rely on."""

import ast
import functools
import importlib.util
import itertools
import re
import subprocess
import sys

import build
import pytest

import spp_lite

SOURCES = build.sources()
IDS = [source.stem for source in SOURCES]
EXERCISE = r"\*\*Ex {number}([a-z]) · {kind} · difficulty [●○]{{3}} · importance [●○]{{3}} · ~\d+ min\.\*\*"


def tags(cell):
    return cell.metadata.get("tags", [])


def cells(source, kind, tag=None):
    found = [cell for cell in build.edition(source, exercises=False).cells if cell.cell_type == kind]
    return [cell for cell in found if tag is None or tag in tags(cell)]


def prose(source):
    return "\n\n".join(cell.source for cell in cells(source, "markdown"))


def story(source):
    """The prose that every reader reads between cells: without the box, what is folded, the quiz and the clock;
    a fenced command is no prose."""
    text = prose(source).split("\n## ", 1)[1].split("## Recap")[0]
    return re.sub(r"<details>.*?</details>|```.*?```|<[^>]+>| · minute \d+", " ", text, flags=re.S)


def lines(cell):
    return [line for line in cell.source.splitlines() if line.strip()]


@pytest.mark.parametrize("source", SOURCES, ids=IDS)
def test_the_parts_are_there(source):
    text, number = prose(source), source.stem[:2]
    assert text.startswith(f"# {number} · ")
    for part in ("**Goals**", "**Time**", "**You need**", "**Tiny**", "**Real**"):
        assert part in text.split("\n## ")[0], f"the box lacks {part}"
    assert len(re.findall(r"\*\*Predict", text)) >= 2 and len(re.findall(r"What you should see", text)) >= 2
    recap, quiz = text.split("## Recap")[1].split("## Quiz")
    assert re.findall(r"^(\d)\. ", recap, re.M) == list("12345")
    assert len(re.findall(r"<details><summary>\d\.", quiz)) == 4
    assert "arxiv.org/abs/2405.16057" in text
    following = SOURCES[SOURCES.index(source) + 1 :][:1]
    assert all(f"({after.stem}.ipynb)" in text for after in following), "no link to the next notebook"
    assert cells(source, "code", "raises-exception"), "no deliberately broken cell"
    (setup,) = cells(source, "code", "setup")
    (first,) = cells(SOURCES[0], "code", "setup")
    assert setup.source == first.source and len(lines(setup)) <= 6


def code_of(cell):
    return cell.source if cell.cell_type == "code" else ""


@pytest.mark.parametrize("source", SOURCES, ids=IDS)
def test_readers_write_what_the_notebook_then_runs(source):
    text, number = prose(source), source.stem[:2]
    core, stretch = (re.findall(EXERCISE.format(number=number, kind=kind), text) for kind in ("core", "stretch"))
    assert len(core) >= (2 if number == "00" else 3) and stretch
    assert sorted(core + stretch) == [chr(97 + i) for i in range(len(core + stretch))]
    complete = build.edition(source, exercises=False).cells
    goals = text.split("**Goals**")[1].split("**Time**")[0]
    for letter in core + stretch:
        name = f"checks.ex_{number}{letter}"
        assert any(re.search(rf"^{name}\(\w+\)$", lines(cell)[-1]) for cell in complete if "check" in tags(cell)), name
        assert f"Ex {number}{letter}" in goals or letter in stretch, "a goal is tied to every exercise"
        assert any(f", {name})" in code_of(cell) for cell in complete) or letter in stretch, f"yours(…, {name})"
    blanks = "\n".join(cell.source for cell in build.edition(source, exercises=True).cells)
    asked = len(core + stretch)
    assert blanks.count("# your turn") == blanks.count("<summary>Solution</summary>") == asked
    assert all(blanks.count(f"<summary>Hint {n}</summary>") == asked for n in (1, 2))


@pytest.mark.parametrize("source", SOURCES, ids=IDS)
def test_no_answer_stands_before_its_blank(source):
    complete, blanks = (build.edition(source, exercises=way).cells for way in (False, True))
    solved = [cell for cell in complete if cell.cell_type == "code" and "BEGIN" not in cell.source]
    for place, cell in enumerate(blanks):
        if "# your turn" not in code_of(cell):
            continue
        name = re.search(r"def (\w+)\(", cell.source)[1]
        (answer,) = [one.source for one in solved if re.search(rf"^def {name}\(", one.source, re.M)]
        told = [squeeze(line) for line in answer.splitlines() if line not in cell.source.splitlines()]
        before = [squeeze(re.sub(r"<details>.*?</details>", "", one.source, flags=re.S)) for one in blanks[:place]]
        shown = [line for line in told if len(line) >= 16 and any(line in text for text in before)]
        assert not shown, f"{name}: {shown}"


def squeeze(text):
    return re.sub(r"\s+", "", text)


@pytest.mark.parametrize("source", SOURCES, ids=IDS)
def test_predictions_are_kept_and_answered(source):
    text = prose(source)
    code = "\n".join(cell.source for cell in cells(source, "code"))
    predicted = len(re.findall(r"\*\*Predict", text)) - len(
        cells(source, "code", "lab")
    )  # a lab's is answered by its folds
    assert len(re.findall(r"= Guess\(", code)) >= max(2, predicted) and code.count(".compare(") == code.count(
        "= Guess("
    )
    assert "**What you should see" not in text and text.count("<summary>What you should see</summary>") >= 2
    for lab in text.split("Lab:")[1:]:
        assert "(1)" in lab and "(2)" in lab and "<summary>Answers</summary>" in lab.split("\n## ")[0]


@pytest.mark.parametrize("source", SOURCES, ids=IDS)
def test_cells_are_short_and_our_own_checks_are_folded(source):
    for cell in cells(source, "code"):
        narrow = "setup" in tags(cell) or all(len(line) <= 100 for line in lines(cell))
        assert len(lines(cell)) <= 20 and narrow, cell.source
        if "assert " in cell.source:
            assert {"we-checked", "check", "setup"} & {*tags(cell)}, cell.source
        if "we-checked" in tags(cell):
            assert cell.metadata["jupyter"]["source_hidden"] and "checked: " in lines(cell)[-1]


@pytest.mark.parametrize("source", SOURCES, ids=IDS)
def test_a_lab_is_driven_and_has_a_static_twin(source):
    code = [cell.source for cell in cells(source, "code")]
    labs = [number for number, text in enumerate(code) if ".show()" in text and "lab" in text]
    assert labs
    for number in labs:
        assert ".selftest()" in code[number] and ".static(" in code[number + 1]
    text = prose(source)
    assert "**Explain" in text.split("Lab:")[1] and all(f"({n})" in text.split("Lab:")[1] for n in (1, 2))


@pytest.mark.parametrize("source", SOURCES, ids=IDS)
def test_the_prose_is_measured(source):
    lengths = [len(lines(cell)) for cell in cells(source, "code")]
    words = len(re.sub(r"[#>*`|$-]", " ", story(source)).split())
    assert words / sum(lengths) >= 4, f"{words / sum(lengths):.1f} words of prose per line of code"


@pytest.mark.parametrize("source", SOURCES, ids=IDS)
def test_the_folded_solution_filled_in_is_the_complete_edition(source):
    """So the run of the complete edition proves that every check accepts its solution."""
    solutions = [
        re.search(r"```python\n(.*?)\n```", cell.source, re.S)[1]
        for cell in build.edition(source, exercises=True).cells
        if "solution" in tags(cell)
    ]
    code = [cell.source for cell in cells(source, "code")]
    assert all(solution in code for solution in solutions)


@pytest.mark.parametrize("source", SOURCES, ids=IDS)
def test_a_notebook_imports_public_names_or_teaching_and_those_before_torch(source):
    imports = [
        node for node in ast.walk(ast.parse(source.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    names = {}  # module → names, in the order of the text
    for node in sorted(imports, key=lambda node: node.lineno):
        for module in [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]:
            names.setdefault(module, []).extend(alias.name for alias in node.names)
    ours = {module: found for module, found in names.items() if module.split(".")[0] == "spp_lite"}
    assert set(ours.pop("spp_lite", [])) <= {"spp_lite", *spp_lite.__all__}
    assert all(module.split(".")[1] == "teaching" for module in ours), list(ours)
    roots = [module.split(".")[0] for module in names]
    late = [roots.index(name) for name in ("torch", "transformers", "peft", "datasets", "lm_eval") if name in roots]
    assert all(roots.index("spp_lite") < place for place in late), "spp_lite sets how torch's threads wait"


SECTION = re.compile(r"^## (?:(\d+) · )?.* · minute (\d+)$", re.M)


@functools.cache
def sections(source):
    """Number → (minutes, code cells) of a notebook's numbered sections; "0": the set-up cell."""
    found, ends, at = {"0": (0, [])}, [], "0"
    for cell in build.edition(source, exercises=False).cells:
        if cell.cell_type == "code":
            found[at][1].append(cell.source)
            continue
        for number, minute in SECTION.findall(cell.source):
            at = number or "end"
            found.setdefault(at, (0, []))
            ends.append((at, int(minute)))
    for (name, start), (_, end) in itertools.pairwise(ends):
        found[name] = (found[name][0] + end - start, found[name][1])
    return found


def syllabi():
    """(length in minutes, [(notebook, [sections])], minutes), as workshop/README.md says."""
    text = (build.HERE.parent / "workshop" / "README.md").read_text()
    for length, path, total in re.findall(r"^\| (\d+) \| (.+?) \| (\d+) \|", text, re.M):
        parts = []
        for notebook, first, last, more in re.findall(r"(\d\d) §(\d+)(?:–(\d+))?(?:, §(\d+))?", path):
            numbers = range(int(first), int(last or first) + 1)
            parts.append((notebook, [str(number) for number in [*numbers, *([int(more)] if more else [])]]))
        yield int(length), parts, int(total)


def test_the_syllabi_add_up_and_leave_room_for_breaks():
    assert [length for length, _, _ in syllabi()] == [90, 180, 480]
    found = {source.stem[:2]: sections(source) for source in SOURCES}
    for length, parts, total in syllabi():
        assert sum(found[notebook][number][0] for notebook, numbers in parts for number in numbers) == total
        assert total <= 0.9 * length


@pytest.mark.parametrize("length, parts", [(length, parts) for length, parts, _ in syllabi()])
def test_no_syllabus_uses_what_it_skipped(length, parts):
    """The chosen sections of a notebook, run after its set-up cell alone, define every name that they use."""
    for notebook, numbers in parts:
        (source,) = [one for one in SOURCES if one.stem.startswith(notebook)]
        code = [cell for number in ["0", *numbers] for cell in sections(source)[number][1]]
        code = re.sub(r"^(\s*)%.*$", r"\1pass", "\n".join(code), flags=re.M)
        command = [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--isolated",
            "--select",
            "F821",
            "--output-format=concise",
            "-",
        ]
        done = subprocess.run(command, input=code, text=True, capture_output=True)
        assert done.returncode == 0, f"{length} minutes, {notebook} §{numbers}: {done.stdout}"


def test_a_path_that_skips_a_definition_is_seen():
    with pytest.raises(AssertionError, match="Undefined name"):
        test_no_syllabus_uses_what_it_skipped(90, [("08", ["1", "4"])])


def test_the_slides_and_the_cheat_sheet_need_no_network(tmp_path):
    place = build.HERE.parent / "workshop" / "build.py"
    spec = importlib.util.spec_from_file_location("workshop_build", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    slides, sheet = (path.read_text() for path in module.main(tmp_path))
    asked = len(module.FIGURE.findall((place.parent / "slides.md").read_text()))
    assert asked >= 8 and slides.count('<img src="data:image/png;base64,') == asked == slides.count(' alt="')
    assert slides.count("<section>") >= 12 and "<table>" in sheet and "W ⊙ (1 + s R(α) β)" in sheet
    for text in (slides, sheet):
        assert not re.search(r'(?:src|href)="(?!data:)', text) and "figure-" not in text
