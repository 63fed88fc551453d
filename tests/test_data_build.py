"""The tiny world keeps its promises: the same bytes from the same seed, and no test fact in the instruction records."""

import filecmp
import json
import math
import random
import re
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from data.build import pretrain
from data.build.__main__ import DATA, RECORDS, held_out, write_text
from data.build.corpus import KIND, claims, document
from data.build.draw import Draw
from data.build.families import CAST, FAMILIES
from data.build.pretrain import WINDOW, Muon, Stage, batches, window
from data.build.world import RELATIONS, World, question
from spp_lite import evaluate, load, perplexity
from spp_lite.models import load_tokenizer
from spp_lite.pruning.blocks import block_linears
from spp_lite.recover.data import IGNORED
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
    assert config.max_position_embeddings == WINDOW  # what it was trained on
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
    for key in list(world.facts)[::97]:
        text, answer = question(world, key, random.Random(0))
        assert key[0] in text and answer == world.facts[key] and key[1] in RELATIONS


def test_the_dense_model_knows_its_world():
    model, tokenizer = load("tiny")
    table = evaluate(model, tokenizer, "tiny", limit=60, progress=False)
    assert average_accuracy(table) >= 0.9 and chance_accuracy() < 0.4


def test_the_entropy_is_that_of_the_draws(world):
    """Counted in two ways: what Draw adds up, and how often each of few texts comes."""
    counts, nats = Counter(), 0.0
    for seed in range(4000):
        draw = Draw(seed)
        name = draw.weighted({"a": 3, "b": 1})
        counts[(name, *draw.sample("xyz", 2), draw.chance(0.25)) if name == "a" else (name,)] += 1
        nats += draw.nats
    found = -sum(n / 4000 * math.log(n / 4000) for n in counts.values())
    assert nats / 4000 == pytest.approx(found, rel=0.03)


def test_the_same_seed_draws_the_same_texts(world):
    once, again = ([document(world, draw) for _ in range(50)] for draw in (Draw(1), Draw(1)))
    assert once == again and len(set(once)) > 45


def test_a_window_is_full_and_of_every_kind(world):
    tokenizer, draw, cut = load_tokenizer(DATA / "tiny-llama"), Draw(0), random.Random(0)
    for kind in KIND.values():
        ids = window(tokenizer, lambda kind=kind: kind(world, draw), cut)
        assert len(ids) == WINDOW


def test_the_last_stage_counts_answers_alone_beside_whole_windows(world, monkeypatch):
    tokenizer = load_tokenizer(DATA / "tiny-llama")
    for name, few in {
        "READING": ((1, 8, 2),),
        "CLAIMS": (1, 5),
        "WINDOWS": (1, 2),
        "LAST": (Stage(1, 0.5, windows=2, rte=7), Stage(1, 0.5, windows=2, rte=1, arc=4, boolq=3)),
    }.items():
        monkeypatch.setattr(pretrain, name, few)
    steps = [parts for parts, _, _ in batches(world, tokenizer, 0)]
    assert [len(parts) for parts in steps] == [1, 1, 1, 2, 4]
    reading, judged, windows, answers, beside, _, asked, passages, _ = [part[:2] for parts in steps for part in parts]
    assert [len(ids) for ids, _ in (reading, judged, windows, answers, beside)] == [64, 5, 2, 7, 2]
    ids, labels = answers
    counted = tokenizer.batch_decode(ids[labels != IGNORED].unsqueeze(1))
    assert len(counted) == 7 and {word.strip() for word in counted} <= {"true", "false", *CAST}
    ids, labels = asked
    assert ((labels != IGNORED).sum(1) == 1).all() and len(labels) == 4
    ids, labels = passages
    counted = tokenizer.batch_decode(ids[labels != IGNORED].unsqueeze(1))
    assert len(counted) == 3 * 4 and {word.strip() for word in counted} <= {"yes", "no"}
    for ids, labels in (reading, judged, windows, beside):
        assert ((labels == ids) == (ids != 0)).all() and ((labels == IGNORED) == (ids == 0)).all()


def test_a_claim_comes_after_the_answer_that_decides_it(world):
    """What stands before a claim on the same person or thing does not contradict its yes or no."""
    seen = Counter()
    for seed in range(300):
        text = claims(world, Draw(seed))
        for before, claim in (
            (r"Where is (\w+)\? Answer: (\w+)", r"Answer: {1} Question: Is {0} in the (\w+)\? Answer: (yes|no)"),
            (
                r"Who has the (\w+) now\? Answer: (\w+) Claim",
                r"Now (\w+) has the {0}\. True or false\? Answer: (true|false)",
            ),
        ):
            for asked, answer in re.findall(before, text):
                claimed, said = re.search(claim.format(asked, answer), text).groups()
                assert (claimed == answer) == (said in ("yes", "true"))
                seen[before] += 1
    assert min(seen.values()) > 10 and len(seen) == 2


def test_muon_makes_the_update_orthogonal():
    weight = torch.nn.Parameter(torch.zeros(6, 4))
    weight.grad = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=1.0).step()
    singular = torch.linalg.svdvals(weight.detach()) / 1.5**0.5
    assert ((singular > 0.6) & (singular < 1.3)).all()


def test_the_model_knows_nearly_all_that_the_text_tells(world):
    """Its perplexity of held-out text is near the bound: the entropy of the draws, over the tokens that show them."""
    model, tokenizer = load("tiny")
    texts, nats = held_out(world)
    text = "\n\n".join(texts[320:])
    bound = math.exp(nats / len(tokenizer(text)["input_ids"]))
    assert bound < perplexity(model, tokenizer, text) < 1.1 * bound


def test_the_shipped_model_is_dense_and_its_weights_are_spread_as_in_a_real_one():
    """A soft threshold leaves zeros and few large weights (a median kurtosis of 13); a bell has 3."""
    model, _ = load(dtype=torch.float32)
    weights = [linear.weight.detach() for linear in block_linears(model).values()]
    assert len(weights) == 42 and all((weight == 0).float().mean() < 0.001 for weight in weights)
    kurtosis = torch.stack([((weight / weight.std()) ** 4).mean() for weight in weights])
    assert 3 < kurtosis.median() < 6 and kurtosis.max() < 20


def test_a_stage_leaves_no_noise_and_may_end_part_of_the_way_back(world, monkeypatch, tmp_path):
    """Noise in a step is gone after it, so that at rate 0 nothing changes; what it does to the gradient stays."""
    few = {"READING": (), "CLAIMS": (0, 5), "WINDOWS": (1, 1)}

    def trained(*last: Stage) -> list[torch.Tensor]:
        for name, value in (few | {"LAST": last}).items():
            monkeypatch.setattr(pretrain, name, value)
        model = pretrain.train(world, load_tokenizer(DATA / "tiny-llama"), tmp_path, say=lambda *_, **__: None)
        return [weight.detach().float() for weight in model.parameters()]

    start = trained()
    for found, was in zip(trained(Stage(2, 0.0, windows=1, noise=0.5)), start, strict=True):
        assert torch.equal(found, was)
    moved, back = (trained(Stage(3, 1.0, windows=1, threshold=0.5, back=back)) for back in (0.0, 0.25))
    assert any(not torch.equal(one, was) for one, was in zip(moved, start, strict=True))
    for one, found, was in zip(moved, back, start, strict=True):
        torch.testing.assert_close(found, 0.75 * one + 0.25 * was, rtol=0.01, atol=1e-6)
    noisy, plain = (trained(Stage(3, 1.0, windows=1, noise=noise)) for noise in (0.5, 1e-9))
    assert any((one - other).abs().max() > 1e-4 for one, other in zip(noisy, plain, strict=True))
