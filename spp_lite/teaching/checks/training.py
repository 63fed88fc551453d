"""Checks of notebook 06: the Alpaca prompt, and labels for the loss. Its other checks are in steps.py."""

from collections.abc import Callable

from ...recover.data import IGNORED, PROMPT, PROMPT_WITH_INPUT, prompt
from .common import CheckFailed, answer, check, compare

EXAMPLES = [  # prompt, answer, end of sequence; the second answer repeats a token of its prompt
    ([1, 40, 41, 42, 43], [7, 8, 9], 2),
    ([1, 50, 51], [51, 6], 5),
]
RECORDS = [
    {"instruction": "Name the animal.", "input": "It barks.", "output": "a dog"},
    {"instruction": "Where does Ada live?", "input": "", "output": "in London"},
    {"instruction": "What does {x} mean?", "input": "Braces: {y}", "output": "a name"},
]


def build_prompt(record: dict[str, str]) -> str:
    """The template with or without input, filled with a record."""
    return prompt(record)


@check(library=build_prompt)
def ex_06a(function: Callable) -> None:
    """build_prompt(record): the Alpaca template with or without input, filled, up to where the response starts."""
    for record in RECORDS:
        found, right = answer("Ex 06a", function, dict(record)), prompt(record)
        if not isinstance(found, str):
            raise CheckFailed(f"Ex 06a: a string is asked for; you return {found!r:.60}.")
        kind = "a record with an input" if record["input"] else "a record whose input is empty"
        other = (PROMPT if record["input"] else PROMPT_WITH_INPUT).format(**record)
        wrong = "this record has an input: use the template that shows it"
        reasons = [
            (other, wrong if record["input"] else "the input is empty: use the template without '### Input:'"),
            (PROMPT, "the template is not filled: put the record's texts in its braces"),
            (PROMPT_WITH_INPUT, "the template is not filled: put the record's texts in its braces"),
            (right + record["output"], "the prompt ends where the response starts: leave the output out"),
            (right[:-1], "the newline after '### Response:' is missing: the response starts on its own line"),
            (right.strip(), "the newline after '### Response:' is missing: the response starts on its own line"),
            (right[right.index("###") :], "the sentence 'Below is an instruction …' is missing"),
            (right.replace("\n\n", "\n"), "parts are divided by an empty line: two newlines"),
            (found, _first_difference(found, right)),
        ]
        compare("Ex 06a", found, right, reasons, case=kind)


def _first_difference(found: str, right: str) -> str:
    same = next((i for i, (a, b) in enumerate(zip(found, right, strict=False)) if a != b), min(len(found), len(right)))
    return (
        f"from character {same} on you have {found[same : same + 24]!r} where {right[same : same + 24]!r} is asked for"
    )


def _pair(found) -> tuple[list, list]:
    try:
        ids, labels = ([int(token) for token in part] for part in found)
    except (TypeError, ValueError, RuntimeError):
        raise CheckFailed(
            f"Ex 06b: return two lists of whole numbers, ids and labels; you return {found!r:.60}."
        ) from None
    return ids, labels


def build_labels(prompt_ids: list[int], answer_ids: list[int], eos: int) -> tuple[list[int], list[int]]:
    """The ids of prompt, answer and EOS; and their labels, −100 on the prompt."""
    learned = [*answer_ids, eos]
    return [*prompt_ids, *learned], [IGNORED] * len(prompt_ids) + learned


@check(library=build_labels)
def ex_06b(function: Callable) -> None:
    """build_labels(prompt_ids, answer_ids, eos): ids of prompt, answer and EOS; labels, −100 on the prompt, unshifted."""
    for start, response, eos in EXAMPLES:
        ids, labels = _pair(answer("Ex 06b", function, list(start), list(response), eos))
        case = f"prompt {start}, answer {response}, eos {eos}"
        right_ids = [*start, *response, eos]
        reasons = [
            ([*start, *response], "the ids lack EOS, so the model never learns to stop"),
            ([*response, eos], "the ids lack the prompt: the loss skips it, but the model must read it"),
            ([*start, eos, *response], "EOS comes last, after the answer"),
            ([*start, eos, *response, eos], "one EOS is enough, after the answer"),
        ]
        compare("Ex 06b", ids, right_ids, reasons, case=case)
        right = [*[IGNORED] * len(start), *response, eos]
        compare("Ex 06b", labels, right, _wrong_labels(start, response, eos), case=case)


def _wrong_labels(start: list[int], response: list[int], eos: int) -> list[tuple[list[int], str]]:
    ids, hidden, learned = [*start, *response, eos], [IGNORED] * len(start), [*response, eos]
    right = hidden + learned
    return [
        (ids, "the prompt counts in the loss: its labels must be -100"),
        (hidden + response, "labels are one shorter than ids: EOS needs a label too, its own id"),
        (hidden + response + [IGNORED], "EOS is masked, so the model never learns to stop: its label is its id"),
        (learned, "labels are shorter than ids: put one -100 there for every token of the prompt"),
        ([0] * len(start) + learned, "0 is a token; the number that the loss skips is -100"),
        ([1] * len(start) + learned, "1 is a token; the number that the loss skips is -100"),
        ([*right[1:], IGNORED], "the labels are shifted to the left: leave them in place, the model shifts them"),
        ([*right[1:], eos], "the labels are shifted to the left: leave them in place, the model shifts them"),
        ([IGNORED, *right[:-1]], "the labels are shifted to the right: leave them in place, the model shifts them"),
        (start + [IGNORED] * len(learned), "the mask is the wrong way round: hide the prompt, learn the answer"),
        ([IGNORED] * len(ids), "every label is -100: there is nothing to learn"),
        ([IGNORED if token in start else token for token in ids],
         "you hide a token of the answer because it is also in the prompt: go by place, not by value"),
    ]  # fmt: skip
