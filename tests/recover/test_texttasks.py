"""A task made of prose: real continuations among others of like length, each passage in one split, the same every time."""

import json

import pytest

from spp_lite import evaluate, load
from spp_lite.models import embedded
from spp_lite.recover.texttasks import SPLITS, tasks_from_text

TEXTS = [" ".join(f"w{text}x{word}" for word in range(200)) for text in range(12)]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tasks"


def items(cache, name):
    lines = {
        split: (cache / name / f"{split}.jsonl").read_text(encoding="utf-8").strip().split("\n") for split in SPLITS
    }
    return {split: [json.loads(line) for line in found] for split, found in lines.items()}


@pytest.mark.parametrize("texts", [TEXTS, [f"{text}\n\nA «second» paragraph — with\ttabs." for text in TEXTS]])
def test_the_answer_is_what_follows_in_the_text_and_the_others_are_not(cache, texts):
    found = items(cache, tasks_from_text(texts))
    passages = [{item["context"] for item in split} for split in found.values()]
    assert sum(map(len, passages)) == len(set.union(*passages))  # a passage is in one split alone
    for split in found.values():
        for item in split:
            choices, answer = item["choices"], item["choices"][item["answer"]]
            assert len(set(choices)) == 4 and len({len(choice.split()) for choice in choices}) == 1
            follows = [text for text in texts if f"{item['context']} {answer}" in " ".join(text.split())]
            assert follows or any(item["context"] in text and answer in text for text in texts)
            wrong = [choice for choice in choices if choice != answer]
            assert not any(f"{item['context']} {choice}" in text for text in texts for choice in wrong)


def test_places_are_drawn_and_the_same_text_gives_the_same_task(cache, tmp_path):
    name = tasks_from_text(TEXTS, seed=3)
    places = [item["answer"] for split in items(cache, name).values() for item in split]
    assert set(places) == {0, 1, 2, 3}
    before = {path: path.read_bytes() for path in (cache / name).iterdir()}
    for path in before:
        path.unlink()
    assert tasks_from_text(TEXTS, seed=3) == name
    assert {path: path.read_bytes() for path in (cache / name).iterdir()} == before
    assert len({name, tasks_from_text(TEXTS), tasks_from_text(TEXTS[1:]), tasks_from_text(TEXTS, items=60)}) == 4


def test_too_little_text_is_said():
    with pytest.raises(ValueError, match=r"the texts give 2 different passages of 8 words .*, too few for a task"):
        tasks_from_text(["one two three four five six seven eight nine", "a b c d e f g h"])


def test_a_file_is_scored_by_its_name_and_the_model_that_knows_it_is_right():
    model, tokenizer = load("tiny")
    file = embedded("text", "validation.txt")
    table = evaluate(model, tokenizer, f"text:{file}", limit=40, progress=False)
    assert list(table["metric"]) == ["acc", "acc_norm"] and (table["n"] == 40).all()
    assert table["value"][0] > 0.9
    name = table["task"][0]
    assert name.startswith("text_validation_")
    assert evaluate(model, tokenizer, f"{name}_val", limit=10, progress=False)["n"][0] == 10


def test_a_beginning_that_texts_share_is_asked_once(cache):
    shared = " ".join(f"same{word}" for word in range(24))
    texts = [f"{shared} " + " ".join(f"w{text}x{word}" for word in range(24)) for text in range(60)]
    found = [item["context"] for split in items(cache, tasks_from_text(texts)).values() for item in split]
    assert len(found) == len(set(found)) >= 40


def test_a_task_that_was_torn_or_moved_is_made_again(cache, monkeypatch):
    name = tasks_from_text(TEXTS, name="My prose")
    assert name.startswith("text_my_prose_")
    whole = {path.name: path.read_bytes() for path in (cache / name).iterdir()}
    (cache / name / f"{name}.yaml").write_text("")
    assert tasks_from_text(TEXTS, name="My prose") == name
    assert whole == {path.name: path.read_bytes() for path in (cache / name).iterdir()}
    assert [path.name for path in cache.iterdir()] == [name]
    moved = cache.parent.with_name("elsewhere")
    cache.parent.rename(moved)
    monkeypatch.setenv("SPP_CACHE", str(moved))
    tasks_from_text(TEXTS, name="My prose")
    assert str(moved) in (moved / "tasks" / name / f"{name}.yaml").read_text()
