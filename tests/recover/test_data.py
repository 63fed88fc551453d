import json
import re
import shutil
import string
from contextlib import nullcontext

import pytest
import torch
from datasets import Dataset
from hypothesis import example, given
from hypothesis import strategies as st
from pandas import DataFrame
from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE, Unigram, WordLevel
from transformers import ByT5Tokenizer, DataCollatorForSeq2Seq, PreTrainedTokenizerFast

from spp_lite import evaluate, load, perplexity
from spp_lite.models import load_tokenizer, resolve
from spp_lite.recover import data as module
from spp_lite.recover.data import (
    FIELDS,
    IGNORED,
    calibration_batches,
    default_texts,
    encode,
    held_out,
    load_alpaca,
    prompt,
    tokenize,
    tokenize_records,
)
from spp_lite.recover.perplexity import record_loss, text_ids
from spp_lite.recover.texttasks import tasks_from_text

RECORD = {"instruction": "Name a colour.", "input": "", "output": "red"}


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(resolve("tiny"))


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def test_prompt_is_alpacas_with_and_without_input():
    assert prompt(RECORD) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        "\n\n### Instruction:\nName a colour.\n\n### Response:\n"
    )
    assert "\n\n### Input:\nsky\n\n### Response:\n" in prompt(RECORD | {"input": "sky"})
    assert "paired with an input" in prompt(RECORD | {"input": "sky"})


def byte_level():
    """GPT-2's kind: every byte is a token, one token is pad and EOS; two line breaks merge into one, over any border."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = [*letters, "\u010a\u010a", "<|endoftext|>", "<|im_start|>", "[PAD]"]
    backend = Tokenizer(BPE({name: number for number, name in enumerate(names)}, [("\u010a", "\u010a")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    marks = {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, extra_special_tokens=["<|im_start|>", "[PAD]"], **marks)


def unigram():
    """A kind that finds "</s>" in its vocabulary, whatever it is told of control tokens."""
    names = ["<unk>", "<s>", "</s>", "\u2581", *string.printable]
    backend = Tokenizer(Unigram([(name, -float(number > 3)) for number, name in enumerate(names)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def llama2(real_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama2")
    shutil.copyfile(real_data / "llama2_tokenizer.model", folder / "tokenizer.model")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "add_bos_token": true}')
    return load_tokenizer(folder)


CONTROL = ["<s>", "</s>", "<unk>", "[PAD]", "<|im_start|>", "<|endoftext|>", "### Response:\n", "{instruction}", "\n"]
TEXT = st.lists(st.one_of(st.sampled_from(CONTROL), st.text(max_size=8)), min_size=1, max_size=5).map("".join)
RECORDS = st.fixed_dictionaries(dict.fromkeys(FIELDS, TEXT))


@pytest.fixture(scope="module", params=["tiny", "byte_level", "slow", "llama2"])
def any_tokenizer(request):
    """Fast and slow; BOS before, EOS after, or neither; with pad = EOS."""
    made = {
        "tiny": lambda: load_tokenizer(resolve("tiny")),
        "byte_level": byte_level,
        "slow": lambda: ByT5Tokenizer(extra_ids=0),
    }
    return request.getfixturevalue("llama2") if request.param == "llama2" else made[request.param]()


@given(record=RECORDS, on_inputs=st.booleans())
@example(record=RECORD | {"output": "\nred"}, on_inputs=False)
@example(record=RECORD | {"output": "Now only <s>$10</s> $8!</s>"}, on_inputs=False)
@example(record=RECORD | {"output": "\u2581"}, on_inputs=False)  # LLaMA's own letter for a blank
def test_what_is_learned_is_the_text_as_letters_then_one_eos(any_tokenizer, record, on_inputs):
    row = tokenize(record, any_tokenizer, cutoff=10_000, train_on_inputs=on_inputs)
    ids, labels = row["input_ids"], row["labels"]
    assert ids == [*encode(any_tokenizer, [prompt(record) + record["output"]])[0], any_tokenizer.eos_token_id]
    marks = [token for token in ids if token in {*any_tokenizer.all_special_ids} - {any_tokenizer.unk_token_id}]
    bos = any_tokenizer.bos_token_id
    assert marks == [*[bos] * (ids[0] == bos), any_tokenizer.eos_token_id]
    start = 0 if on_inputs else next(i for i, label in enumerate(labels) if label != IGNORED)
    assert labels == [IGNORED] * start + ids[start:] and len(row["attention_mask"]) == len(ids)
    if any_tokenizer.unk_token_id not in ids and not on_inputs:  # LLaMA's decoding drops a blank, and what follows none
        learned = any_tokenizer.decode(ids[start:-1], clean_up_tokenization_spaces=False)
        blank = str.maketrans("", "", " \u2581")
        assert learned.translate(blank).endswith(record["output"].translate(blank))
        assert len(learned) <= len(record["output"]) + 1  # a token that spans the border brings a line break


@given(text=TEXT)
def test_encoding_is_the_tokenizers_own_but_for_control_tokens(any_tokenizer, text):
    if not any(mark in text for mark in any_tokenizer.all_special_tokens):
        plain = any_tokenizer(text, verbose=False)["input_ids"]
        assert encode(any_tokenizer, ["aside", text])[1] == (
            plain[:-1] if plain[-1:] == [any_tokenizer.eos_token_id] else plain
        )
    assert encode(any_tokenizer, [text])[0].count(any_tokenizer.eos_token_id) == 0


def test_eos_is_learned_once_where_pad_is_eos():
    tokenizer = byte_level()
    rows = [tokenize(RECORD | {"output": text}, tokenizer) for text in ("a", "<|endoftext|> a longer answer")]
    labels = DataCollatorForSeq2Seq(tokenizer, padding=True)(rows)["labels"]
    assert [(one == tokenizer.eos_token_id).sum().item() for one in labels] == [1, 1]


def test_real_records_have_the_tokens_of_their_text(llama2, real_data):
    for record in load_alpaca(real_data / "alpaca_en_999.json").select(range(300)):
        whole = llama2(prompt(record) + record["output"])["input_ids"]
        row = tokenize(record, llama2, cutoff=4096)
        assert row["input_ids"] == [*whole, llama2.eos_token_id]
        learned = llama2.decode([label for label in row["labels"] if label != IGNORED][:-1])
        assert learned.strip() == record["output"].strip()


def test_a_tokenizer_that_cannot_read_letters_is_refused():
    tokenizer = unigram()
    assert encode(tokenizer, ["ab"])[0][0] == 1 and 2 not in encode(tokenizer, ["ab"])[0]
    assert tokenize(RECORD, tokenizer)["labels"].count(2) == 1
    with pytest.raises(ValueError, match=r"takes '</s>' in a text for a control token: reword it near .*the old </s>"):
        tokenize_records(Dataset.from_list([RECORD, RECORD | {"output": "the old </s> price"}]), tokenizer)
    endless = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, "a")), unk_token="a")
    with pytest.raises(ValueError, match="no eos_token"):
        tokenize(RECORD, endless)


@pytest.mark.parametrize("text", [None, 3, ["a"], "\ud83d"])
def test_only_texts_are_encoded(tokenizer, text):
    with pytest.raises(ValueError, match="where a text is needed"):
        encode(tokenizer, ["aside", text])


@pytest.mark.parametrize("train_on_inputs", [False, True])
def test_labels_are_the_answer_and_its_end(tokenizer, train_on_inputs):
    row = tokenize(RECORD, tokenizer, train_on_inputs=train_on_inputs)
    start = len(tokenizer(prompt(RECORD))["input_ids"])
    assert row["input_ids"][0] == tokenizer.bos_token_id
    assert row["labels"][start:] == row["input_ids"][start:]
    assert row["labels"][-1] == tokenizer.eos_token_id
    assert row["labels"][:start] == (row["input_ids"][:start] if train_on_inputs else [IGNORED] * start)
    assert tokenizer.decode(row["input_ids"][start:-1]) == "red"


def test_the_embedded_answers_are_the_tokens_that_the_model_was_trained_on(tokenizer):
    """Pre-training tokenized answers apart from the prompt; the records' text says so with a blank."""
    for record in load_alpaca("tiny", split="validation"):
        answer = tokenizer(record["output"].strip(), add_special_tokens=False)["input_ids"]
        apart = [*tokenizer(prompt(record))["input_ids"], *answer, tokenizer.eos_token_id]
        assert tokenize(record, tokenizer)["input_ids"] == apart


def test_cutoff_shortens_answers_and_leaves_out_records_without_room(tokenizer):
    start = len(tokenizer(prompt(RECORD))["input_ids"])
    assert len(tokenize(RECORD, tokenizer, cutoff=start + 1)["input_ids"]) == start + 1
    data = Dataset.from_list([RECORD, RECORD | {"instruction": "Name a colour. " * 50}])
    with pytest.warns(UserWarning, match=rf"1 of 2 prompts fill the cutoff of {start + 2} tokens: left out"):
        assert len(tokenize_records(data, tokenizer, cutoff=start + 2)) == 1
    longest = len(tokenizer(prompt(data[1]))["input_ids"])
    with pytest.raises(ValueError, match=rf"longer than cutoff=5 tokens: raise the cutoff .longest: {longest}\)"):
        tokenize_records(data, tokenizer, cutoff=5)
    with pytest.raises(ValueError, match="cutoff=-1: give a whole number, 1 or more"):
        tokenize(RECORD, tokenizer, cutoff=-1)
    with pytest.warns(UserWarning, match=rf"1 of 2 answers are cut at {start + 9} tokens, where they do not end"):
        tokenize_records([RECORD, RECORD | {"output": "red " * 50}], tokenizer, cutoff=start + 9)


@pytest.mark.parametrize("name", ["inputs", "Input", " input", "INPUTS "])
def test_an_input_under_nearly_its_name_is_not_dropped(tmp_path, name):
    rows = [RECORD, {"instruction": "a", name: "what matters", "output": "b"}]
    with pytest.raises(ValueError, match=f"record 1 has no 'input' but '{name}', which nobody reads: rename it"):
        load_alpaca(write(tmp_path / "a.json", rows))
    empty = write(tmp_path / "b.json", [RECORD, {"instruction": "a", name: "", "output": "b"}])
    both = write(tmp_path / "c.json", [RECORD | {name: "noise"}])
    assert len(load_alpaca(empty)) == 2
    with pytest.warns(UserWarning, match=f"nobody reads {name}: what belongs to the prompt goes to 'input'"):
        assert load_alpaca(both)[0]["input"] == RECORD["input"]


def test_columns_that_nobody_reads_are_named_once(tmp_path):
    rows = [RECORD | {"context": "in 1960", "history": [["a", "b"]], "text": "all", "id": 3, "note": ""}, RECORD]
    with pytest.warns(UserWarning, match=r"nobody reads context, history: what belongs") as said:
        assert load_alpaca(write(tmp_path / "a.json", rows)).to_list() == [RECORD, RECORD]
    assert len(said) == 1


def test_records_may_be_given_as_they_are():
    assert load_alpaca([RECORD]).to_list() == load_alpaca(Dataset.from_list([RECORD])).to_list() == [RECORD]
    with pytest.raises(ValueError, match="record 0 has no text in 'output'"):
        load_alpaca([RECORD | {"output": 5}])


def test_a_column_that_stands_twice_in_a_table_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("instruction,output,output\na,b,c\n")
    with pytest.raises(ValueError, match=r"a\.csv has 2 columns named 'output': one of them would be lost"):
        load_alpaca(tmp_path / "a.csv")


def test_a_files_name_is_not_its_text(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("some words")
    for score in (lambda text: text_ids(tokenizer, text), lambda text: calibration_batches(text, tokenizer, length=2)):
        with pytest.raises(ValueError, match="is the name of a file, not its text: read_texts"):
            score(str(tmp_path / "a.txt"))
    assert len(text_ids(tokenizer, "no such/file.txt")) > 1


@pytest.mark.parametrize("samples, warns", [(1, False), (20, False), (21, True)])
def test_windows_that_must_repeat_are_said(tokenizer, samples, warns):
    texts = "red " * 30
    length = len(tokenizer(texts)["input_ids"]) - 20
    with pytest.warns(UserWarning, match=f"20 different windows of {length}") if warns else nullcontext():
        calibration_batches(texts, tokenizer, samples=samples, length=length)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda words: calibration_batches(None, words), "a NoneType holds no texts"),
        (lambda words: calibration_batches(["a", None], words), r"text 1 is no text \(null\)"),
        (lambda words: calibration_batches([float("nan")], words), r"text 0 is no text \(a float\)"),
        (lambda words: tasks_from_text(["a", None]), r"text 1 is no text \(null\)"),
        (lambda words: perplexity(load("tiny")[0], words, 5), "a int holds no texts"),
        (lambda words: perplexity(load("tiny")[0], words, DataFrame({"text": ["a b"]})), "a DataFrame holds no texts"),
        (lambda words: perplexity(load("tiny")[0], words, Dataset.from_dict({"text": ["a b"]})[:1]), "a dict holds no"),
        (lambda words: perplexity(load("tiny")[0], words, ["a", 3]), r"text 1 is no text \(a int\)"),
        (lambda words: evaluate(None, words, 5), "tasks=5: give the name of a set of tasks"),
        (lambda words: evaluate(None, words, ["tiny_rte", None]), "tasks=.* give the name of a set of tasks"),
        (lambda words: held_out([RECORD], parts=0), "parts=0: give a whole number, 1 or more"),
        (lambda words: held_out({"train": 1}), "a dict is no table of rows"),
        (lambda words: held_out(["a"]), r"record 0 has no text in 'instruction' \(it holds: str\)"),
        (lambda words: record_loss(load("tiny")[0], words, "records"), "a str is no table of rows"),
        (lambda words: tokenize(RECORD | {"output": None}, words), r"record 0 has no text in 'output' \(null\)"),
    ],
)
def test_what_holds_no_texts_or_rows_is_named(tokenizer, call, message):
    with pytest.raises(ValueError, match=message):
        call(tokenizer)


def test_a_list_whose_first_record_has_no_input_keeps_the_others(tokenizer):
    rows = [{"instruction": "Say a", "output": "a"}, {"instruction": "Say b", "input": "CONTEXT", "output": "b"}]
    assert "CONTEXT" in tokenizer.decode(tokenize_records(rows, tokenizer)[1]["input_ids"])
    assert Dataset.from_list(rows[::-1]).map(lambda row: tokenize(row, tokenizer))[0]["input_ids"]
    with pytest.raises(ValueError, match=r"record 1 has no text in 'output' \(a int\)"):
        held_out([RECORD, RECORD | {"output": 5}])
    blank = [{"input_ids": [5, 6], "attention_mask": [1, 1], "labels": [-100, -100]}]
    with pytest.raises(ValueError, match="none of the 1 records has a token that counts"):
        record_loss(load("tiny")[0], tokenizer, blank)


def test_records_may_come_as_a_list(tokenizer):
    rows = [RECORD | {"instruction": f"Say {i}."} for i in range(10)]
    model, table = load("tiny")[0], Dataset.from_list(rows)
    assert [part.to_list() for part in held_out(rows)] == [part.to_list() for part in held_out(table)]
    assert record_loss(model, tokenizer, rows) == record_loss(model, tokenizer, table)


def test_alpaca_file_keeps_the_three_fields_and_warns_of_blank_ones(tmp_path):
    rows = [RECORD | {"text": "x"}, RECORD | {"output": " "}, {"instruction": "Say a.", "output": "a"}]
    rows += [RECORD | {"instruction": "\n"}, RECORD | {"input": None, "output": " a{b} "}]
    with pytest.warns(
        UserWarning, match=r"a\.json: 2 of 5 records have a blank instruction or output; they are left out"
    ):
        data = load_alpaca(write(tmp_path / "a.json", rows))
    assert data.column_names == ["instruction", "input", "output"]
    assert data["output"][:] == ["red", "a", " a{b} "]
    assert data["input"][:] == ["", "", ""]


BAD = [
    (
        [{"conversations": [{"from": "human", "value": "hi"}]}],
        "record 0 has no text in 'instruction' .it holds: conver",
    ),
    (
        [{"messages": [], "id": 1}],
        "record 0 has no text in 'instruction' .it holds: messages, id.: .*convert it to instr",
    ),
    ([{"prompt": "a", "completion": "b"}], "record 0 has no text in 'instruction' .it holds: prompt, completion"),
    ([RECORD, {"instruction": "a", "input": ""}], "record 1 has no text in 'output'"),
    ([RECORD, RECORD | {"output": 3}], "record 1 has no text in 'output' .a int"),
    ([RECORD, RECORD | {"output": None}], "record 1 has no text in 'output' .null"),
    ([RECORD | {"output": ["a", "b"]}], "record 0 has no text in 'output' .a list"),
    ([RECORD | {"instruction": {"a": "b"}}], "record 0 has no text in 'instruction' .a dict"),
    ([RECORD, RECORD | {"input": float("nan")}], "record 1 has no text in 'input' .a float"),
    ([RECORD | {"output": ""}], "holds nothing to learn from: 1 of 1 records have a blank"),
]


@pytest.mark.parametrize(
    "rows, message",
    [
        *BAD,
        (
            [RECORD, RECORD | {"output": "ok \ud83d"}],
            "record 1 has no text in 'output' .a lone surrogate.* character 3",
        ),
        ([RECORD, "a"], "record 1 has no text in 'instruction' .it holds: str"),
        ({"data": [RECORD]}, "record 0 has no text in 'instruction' .it holds: data"),
        ([], "holds nothing to learn from: 0 of 0"),
    ],
)
def test_bad_alpaca_files_are_named(tmp_path, rows, message):
    with pytest.raises(ValueError, match=f"bad\\.json.*{message}"):
        load_alpaca(write(tmp_path / "bad.json", rows))


@pytest.mark.parametrize("rows, message", BAD)
def test_records_of_the_hub_and_of_the_caller_pass_the_same_checks(monkeypatch, tokenizer, rows, message):
    columns = {name for row in rows for name in row}
    if len({type(row.get(name)) for row in rows for name in columns} - {str, type(None)}) < 2 and len(rows) > 1:
        rows = [row for row in rows if row is not RECORD] or rows  # a column of Arrow holds one type
        message = message.replace("record 1", "record 0")
    found = Dataset.from_list(rows)
    monkeypatch.setattr(module.models, "require_network", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "load_dataset", lambda name, split: found)
    with pytest.raises(ValueError, match=f"someone/alpaca.*{message}"):
        load_alpaca("someone/alpaca")
    with pytest.raises(ValueError, match=f"the data set.*{message}"):
        tokenize_records(found, tokenizer)


def test_what_is_no_source_of_records_is_named(tmp_path, monkeypatch):
    (tmp_path / "prose.txt").write_text("Once upon a time.")
    with pytest.raises(ValueError, match=r"prose\.txt is plain text: name records with instruction, input, output"):
        load_alpaca(tmp_path / "prose.txt")
    with pytest.raises(ValueError, match="all of it split 'train'"):
        load_alpaca(write(tmp_path / "a.json", [RECORD]), split="validation")
    for absent in ("tiny", "./none", "a.JSON", "a/b/c"):
        with pytest.raises(ValueError, match=r"there is no file|all of it split 'train'"):
            load_alpaca(absent, split="test")

    def broken(name, split):
        raise RuntimeError("no\nsuch thing")

    monkeypatch.setattr(module.models, "require_network", lambda *args, **kwargs: None)
    monkeypatch.setattr(module, "load_dataset", broken)
    with pytest.raises(ValueError, match="the data set someone/alpaca cannot be loaded: no such thing"):
        load_alpaca("someone/alpaca")


def test_the_environment_names_the_default_data(tmp_path, monkeypatch):
    monkeypatch.setenv("SPP_DATA", str(write(tmp_path / "mine.json", [RECORD])))
    assert load_alpaca()[0] == RECORD
    assert len(load_alpaca("tiny")) >= 5000


@given(
    st.lists(st.sampled_from(["red", "Red", " red ", *string.ascii_lowercase]), min_size=2, max_size=60),
    st.integers(1, 3),
)
def test_no_text_is_on_two_sides_of_what_is_held_out(outputs, parts):
    data = Dataset.from_list([RECORD | {"output": output} for output in outputs])
    different = {output.strip().casefold() for output in outputs}
    if len(different) <= parts:
        with pytest.raises(ValueError, match=f"{len(different)} different records are too few to hold {parts} out"):
            held_out(data, parts=parts)
        return
    train, *held = ({one.strip().casefold() for one in side["output"]} for side in held_out(data, parts=parts))
    assert train and all(held) and len(held) == parts and max(map(len, held)) - min(map(len, held)) <= 1
    assert sum(map(len, held)) == len(set.union(*held)) == max(parts, len(different) // 5)
    assert not train & set.union(*held) and train | set.union(*held) == different


@pytest.mark.parametrize("count, last", [(2, 1), (9, 1), (60, 12), (400, 80), (1000, 80)])
def test_texts_to_choose_by_are_the_last_at_most_a_fifth(tmp_path, count, last):
    path = write(tmp_path / "a.json", [RECORD | {"output": f"{number} {{x}}"} for number in range(count)])
    calibration, validation = (default_texts(split, model="x", data=path) for split in ("calibration", "validation"))
    assert calibration + validation == [prompt(record) + record["output"] for record in load_alpaca(path)]
    assert len(validation) == last and held_out(load_alpaca(path))[1]["output"][-1] == f"{count - 1} {{x}}"
    with pytest.raises(ValueError, match="not for 'test'"):
        default_texts("test")


def test_calibration_windows_come_from_the_texts_and_repeat_with_the_seed(tokenizer):
    texts = ["Name a colour. " * 20, "red " * 30]
    stream = torch.tensor([token for text in texts for token in tokenizer(text)["input_ids"]])
    batches = calibration_batches(texts, tokenizer, samples=5, length=7, batch_size=2, seed=1)
    assert [tuple(batch.shape) for batch in batches] == [(2, 7), (2, 7), (1, 7)]
    windows = {tuple(window.tolist()) for window in stream.unfold(0, 7, 1)}
    assert all(tuple(row.tolist()) in windows for batch in batches for row in batch)
    again = calibration_batches(texts, tokenizer, samples=5, length=7, batch_size=2, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(batches, again, strict=True))
    with pytest.raises(ValueError, match="fewer than one window of 4096"):
        calibration_batches(texts, tokenizer, length=4096)
    whole = calibration_batches(texts, tokenizer, samples=1, length=len(stream))
    assert torch.equal(whole[0][0], stream)
    few = {"samples": 8, "length": 9}
    assert torch.equal(
        calibration_batches("red " * 30, tokenizer, **few)[0], calibration_batches(texts[1:], tokenizer, **few)[0]
    )


@pytest.mark.parametrize("wrong", [{"samples": 0}, {"length": 0}, {"length": -3}, {"length": 2.5}, {"batch_size": 0}])
def test_calibration_takes_whole_numbers(tokenizer, wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=re.escape(f"{name}={value}: give a whole number, 1 or more")):
        calibration_batches(["red " * 600], tokenizer, **wrong)


def test_control_tokens_in_calibration_texts_are_letters(tokenizer):
    (batch,) = calibration_batches(["a <s> b </s> " * 30], tokenizer, samples=4, length=40)
    assert not (batch[:, 1:] <= 2).any()
    with pytest.raises(ValueError, match="hold 0 tokens"):
        calibration_batches([], tokenizer)


def test_the_texts_to_calibrate_on_are_those_of_the_data_that_the_environment_names(tmp_path, monkeypatch):
    own = default_texts()
    monkeypatch.setenv(
        "SPP_DATA", str(write(tmp_path / "mine.json", [{**RECORD, "output": f"drum {i}"} for i in range(90)]))
    )
    assert all("drum" in text for text in default_texts()) and default_texts(data="tiny") == own
    assert default_texts(model="tiny") == own  # named, it is the embedded world
