"""World 2, in work: its draws count their entropy, its windows are whole, its records tell no fact that a test asks."""

import math
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import torch

from data.build.world import World
from data.world2 import pretrain
from data.world2.__main__ import held_out
from data.world2.corpus import KIND, claims, document, records
from data.world2.draw import Draw
from data.world2.families import CAST, FAMILIES, items
from data.world2.pretrain import WINDOW, Muon, Stage, batches, window
from spp_lite import load, perplexity
from spp_lite.models import load_tokenizer
from spp_lite.pruning.blocks import block_linears
from spp_lite.recover.data import IGNORED

MODEL = Path(pretrain.__file__).parent / "tiny-llama"


@pytest.fixture(scope="module")
def world():
    return World(0)


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


def test_no_record_tells_a_fact_that_a_test_asks(world):
    told = {word for made in records(world, "open", 0, 800) for word in " ".join(made.values()).split()}
    assert len(told) > 600
    for family in ("hellaswag", "openbookqa"):
        for row in items(world, family, "test", 60, 0):
            (subject,) = {word.strip("?.") for word in row["query"].split()} & {*world.people, *world.things}
            relation = {"hellaswag": "instrument", "openbookqa": "use"}[family]
            assert (
                world.split[subject, relation] == "test"
                and row["choices"][row["label"]] == world.facts[subject, relation]
            )
    for made in records(world, "open", 0, 800):
        for (subject, relation), value in world.facts.items():
            if world.split[subject, relation] == "test" and relation in ("instrument", "use"):
                words = " ".join(made.values()).replace("?", " ").replace(".", " ").split()
                assert not (subject in words and value in words)


@pytest.mark.parametrize("family", FAMILIES)
def test_items_have_one_right_answer_among_their_choices(world, family):
    rows = items(world, family, "validation", 40, 0)
    assert len(rows) == 40 and all(len(set(row["choices"])) == len(row["choices"]) for row in rows)
    assert len({row["label"] for row in rows}) == len(rows[0]["choices"])


def test_a_window_is_full_and_of_every_kind(world):
    tokenizer, draw, cut = load_tokenizer(MODEL), Draw(0), random.Random(0)
    for kind in KIND.values():
        ids = window(tokenizer, lambda kind=kind: kind(world, draw), cut)
        assert len(ids) == WINDOW


def test_the_last_stage_counts_answers_alone_beside_whole_windows(world, monkeypatch):
    tokenizer = load_tokenizer(MODEL)
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
    model, tokenizer = load(MODEL, dtype=torch.float32)
    texts, nats = held_out(world)
    text = "\n\n".join(texts[320:])
    bound = math.exp(nats / len(tokenizer(text)["input_ids"]))
    assert bound < perplexity(model, tokenizer, text) < 1.1 * bound


def test_the_shipped_model_is_dense_and_its_weights_are_spread_as_in_a_real_one():
    """A soft threshold leaves zeros and few large weights (a median kurtosis of 13); a bell has 3."""
    model, _ = load(MODEL, dtype=torch.float32)
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
        model = pretrain.train(world, load_tokenizer(MODEL), tmp_path, say=lambda *_, **__: None)
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
