"""The tiny world keeps its promises: the same bytes from the same seed, and no test fact in the instruction records."""

import filecmp
import json
import re
from collections import Counter

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.build.__main__ import DATA, RECORDS, write_text
from data.build.families import FAMILIES
from data.build.world import RELATIONS, World, question
from spp_lite import evaluate, load
from spp_lite.recover.evaluation import average_accuracy, chance_accuracy


def lines(family, split):
    return [json.loads(line) for line in (DATA / "tasks" / f"{family}_{split}.jsonl").read_text().splitlines()]


def records(name):
    return json.loads((DATA / "tiny_alpaca" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def world():
    return World(0)


def facts_told(world, text):
    """Every (subject, kind of value) of the world that a text gives away: its subject and that subject's value."""
    words = set(re.findall(r"\w+", text))
    return {key for key, value in world.facts.items() if key[0] in words and value in words}


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    write_text(tmp_path)
    made = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) > 30
    different = [str(path) for path in made if not filecmp.cmp(tmp_path / path, DATA / path, shallow=False)]
    assert not different


def test_no_record_gives_away_a_fact_that_a_test_asks(world):
    told = set()
    for record in records("train") + records("validation"):
        told |= facts_told(world, f"{record['instruction']} {record['input']} {record['output']}")
    asked = set()
    for family in ("arc_easy", "arc_challenge", "openbookqa", "hellaswag"):
        for row in lines(family, "test"):
            asked |= facts_told(world, f"{row['query']} {row['choices'][row['label']]}")
    assert len(asked) >= 4 * 150 and len(told) > 2000
    assert not asked & told
    homes = {subject for subject, relation in asked if relation == "country"}
    assert len(homes) >= 80 and not homes & {subject for subject, relation in told if relation in ("town", "country")}


def test_no_sum_of_the_test_is_in_the_records():
    def sums(texts):
        return {frozenset(Counter(found).items()) for text in texts for found in re.findall(r"(\d+) plus (\d+)", text)}

    asked = sums(row["query"] for row in lines("arc_challenge", "test"))
    assert len(asked) >= 80
    assert not asked & sums(record["instruction"] for record in records("train") + records("validation"))


def test_no_passage_or_pair_of_the_test_is_in_the_records():
    instructed = {record["input"] for record in records("train") + records("validation")}
    for family in ("boolq", "rte", "winogrande"):
        for row in lines(family, "test"):
            story = re.split(
                r" (?:Question|Claim): ", row["query"].removeprefix("Passage: ").removeprefix("Premise: ")
            )[0]
            assert story not in instructed


def test_validation_and_test_ask_different_things():
    for family in FAMILIES:
        assert not {row["query"] for row in lines(family, "test")} & {
            row["query"] for row in lines(family, "validation")
        }


def test_records_have_alpacas_fields():
    for name, count in RECORDS.items():
        found = records(name)
        assert len(found) == count
        assert all(set(record) == {"instruction", "input", "output"} for record in found)
        assert all(record["instruction"] and record["output"] for record in found)
        assert len({tuple(record.values()) for record in found}) == count
    assert RECORDS["train"] >= 5000


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("split", ["test", "validation"])
def test_items_are_many_different_and_balanced(family, split):
    rows = lines(family, split)
    assert len(rows) >= 200 and len({row["query"] for row in rows}) >= 0.99 * len(rows)
    choices = len(rows[0]["choices"])
    assert all(len(set(row["choices"])) == choices for row in rows)
    positions = Counter(row["label"] for row in rows)
    assert max(positions.values()) / len(rows) < 1 / choices + 0.09
    answers = Counter(row["choices"][row["label"]] for row in rows)
    assert max(answers.values()) / len(rows) < 1 / choices + 0.09


def test_the_model_is_a_small_llama_with_grouped_queries():
    model = AutoModelForCausalLM.from_pretrained(DATA / "tiny-llama")
    config = model.config
    assert type(model).__name__ == "LlamaForCausalLM" and 1e6 <= model.num_parameters() <= 3e6
    assert config.num_key_value_heads < config.num_attention_heads
    assert all(size % 64 == 0 for size in (config.hidden_size, config.intermediate_size, config.vocab_size))
    assert config.max_position_embeddings >= 512
    assert sum(path.stat().st_size for path in (DATA / "tiny-llama").iterdir()) <= 6e6


@pytest.mark.parametrize("text", ["Where does Mira live?", "Ünïcode → 12, 34\n\n### Response:\n", "two  spaces"])
def test_the_tokenizer_loses_nothing(text):
    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny-llama")
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == 1 and tokenizer.convert_ids_to_tokens([0, 1, 2]) == ["<unk>", "<s>", "</s>"]
    assert 0 not in ids and tokenizer.decode(ids, skip_special_tokens=True) == text


def test_answers_are_single_tokens(world):
    tokenizer = AutoTokenizer.from_pretrained(DATA / "tiny-llama")
    values = sorted({value for values in world.values.values() for value in values})
    lengths = [len(tokenizer(value, add_special_tokens=False)["input_ids"]) for value in values]
    assert max(lengths) == 1


def test_every_question_has_its_answer_in_the_world(world):
    import random

    for key in list(world.facts)[::97]:
        text, answer = question(world, key, random.Random(0))
        assert key[0] in text and answer == world.facts[key] and key[1] in RELATIONS


def test_the_dense_model_knows_its_world():
    model, tokenizer = load("tiny")
    table = evaluate(model, tokenizer, "tiny", limit=60, progress=False)
    assert average_accuracy(table) >= 0.9 and chance_accuracy() < 0.4
