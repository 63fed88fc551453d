"""What sparsity buys at inference, in time and bytes:  python -m benchmarks.inference [linears tiny smollm2 llama-7b-block]

First one linear with one token, CSR against dense, over sizes and shares of non-zeros: where to_sparse's limits come from.
Then each model is pruned by magnitude and run twice: its weights dense, and as to_sparse makes them. Tokens a second of
greedy decoding (batch 1) and of one pass over a prompt, the two forms in turn in the same run, medians (with one thread
of processor time, so that other processes do not count: SPP_THREADS=1, OMP_NUM_THREADS=1); bytes of the linears,
relative to dense; the largest difference of logits, relative to their largest. On a CPU every linear is made CSR, so that the
table shows where it does not pay; the last column is what to_sparse does unasked. Then the files of save_sparse. On a
CUDA GPU also 2:4 in bfloat16. The LLaMA-7B block has random weights; smollm2 needs `spp-lite fetch smollm2`.
"""

import copy
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
import transformers

import spp_lite
from spp_lite.inference import CsrLinear, choose
from spp_lite.models import save
from spp_lite.pruning.blocks import block_linears

from . import seconds

SIZES = (128, 128), (384, 128), (576, 1536), (2048, 2048), (4096, 4096)  # of one linear, (out, in)
MODELS = "tiny", "smollm2", "llama-7b-block"
PROMPT, NEW = 64, 8  # tokens
SPARSITIES = "2:4", "75%", "90%"  # each prunes what the one before left


def clock(device):
    """What times are taken by: with one thread on a CPU its processor time, which leaves other processes out."""
    return time.process_time if str(device) == "cpu" and torch.get_num_threads() == 1 else time.perf_counter


def linears(shares=(0.5, 0.4, 0.3, 0.25, 0.2, 0.1)):
    """How many times as fast as dense CSR is, one row a size, one column a share of non-zeros."""
    torch.manual_seed(0)
    rows = {}
    for out, inputs in SIZES:
        rows[f"{out} × {inputs}"] = found = {}
        for share in shares:
            dense = torch.nn.Linear(inputs, out, bias=False).requires_grad_(False)
            dense.weight *= torch.rand(out, inputs) < share
            sparse, x, calls = CsrLinear(dense), torch.randn(1, inputs), max(3, 2**22 // (out * inputs))
            runs = [lambda one=one, x=x, calls=calls: [one(x) for _ in range(calls)] for one in (dense, sparse)]
            slow, fast = seconds(*runs, clock=clock("cpu"))
            found[f"{share:.0%}"] = slow / fast
    return pd.DataFrame(rows).T


def get(name, dtype, device):
    """A dense model, or None where it has not been fetched."""
    if name != "llama-7b-block":
        try:
            return spp_lite.load(name, dtype=dtype, device_map=device)[0]
        except ValueError as error:
            print(f"{name} is left out: {error}")
            return None
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(dtype)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_hidden_layers=1, vocab_size=1024))
        torch.set_default_dtype(torch.float32)
    return model.eval()


def speeds(dense, sparse, repeats=3):
    """Tokens a second of both forms in decoding and over a prompt, and the relative difference of their logits."""
    ids = torch.randint(5, 1000, (1, PROMPT), generator=torch.Generator().manual_seed(0)).to(dense.device)
    greedy = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    timing = {"repeats": repeats, "clock": clock(dense.device)}
    found = {}
    with torch.no_grad():
        runs = [lambda m=model: m.generate(ids[:, :1], **greedy) for model in (dense, sparse)]
        slow, fast = seconds(*runs, **timing)
        found |= {"decode dense": NEW / slow, "decode sparse": NEW / fast, "decode ×": slow / fast}
        slow, fast = seconds(*(lambda m=model: m(ids).logits for model in (dense, sparse)), **timing)
        found |= {"prompt dense": PROMPT / slow, "prompt sparse": PROMPT / fast, "prompt ×": slow / fast}
        expected, got = dense(ids).logits.float(), sparse(ids).logits.float()
    return found | {"logits off": float((got - expected).abs().max() / expected.abs().max())}


def row(name, model, sparsity, **settings):
    """One line of the table; the model is pruned further, in place."""
    spp_lite.prune(model, None, sparsity, method="magnitude", progress=False)
    sparse = copy.deepcopy(model)
    unasked = [choose(linear, one)[0] for linear, one in block_linears(model).items()]
    chosen = pd.Series(unasked).value_counts()
    table = spp_lite.to_sparse(sparse, **settings).table
    found = speeds(model, sparse)
    pays = "pays" if found["decode ×"] > 1.02 else "does not pay"
    return {
        "model": name, "zeros": sparsity, "bytes": table["after"].sum() / table["before"].sum(), **found,
        "decoding": pays, "to_sparse makes": ", ".join(f"{count} {form}" for form, count in chosen.items()),
    }  # fmt: skip


def table(names, device, dtype, sparsities, **settings):
    """The rows of all models."""
    rows = []
    for name in names:
        model = get(name, dtype, device)
        for sparsity in sparsities if model is not None else ():
            rows.append(row(name, model, sparsity, **settings))
    return pd.DataFrame(rows)


def files(names, dtype=torch.bfloat16):
    """Bytes on disk of save_sparse relative to save: the whole file, and the blocks' linears in it alone."""
    rows = []
    for name in names:
        model = get(name, dtype, "cpu")
        for sparsity in SPARSITIES if model is not None else ():
            spp_lite.prune(model, None, sparsity, method="magnitude", progress=False)
            with tempfile.TemporaryDirectory() as folder:
                made = [write(model, None, Path(folder) / write.__name__) for write in (save, spp_lite.save_sparse)]
                dense, sparse = (sum(file.stat().st_size for file in path.glob("*.safetensors")) for path in made)
            linears = sum(one.weight.nbytes for one in block_linears(model).values())
            share = (sparse - (dense - linears)) / linears
            rows.append({"model": name, "zeros": sparsity, "dense MB": dense / 1e6, "sparse MB": sparse / 1e6,
                         "file": sparse / dense, "its linears": share})  # fmt: skip
    return pd.DataFrame(rows)


def main():
    """Print the tables."""
    names = sys.argv[1:] or ("linears", *MODELS)
    if unknown := set(names) - {"linears", *MODELS}:
        sys.exit(f"{unknown.pop()} is none of linears, {', '.join(MODELS)}")
    show = {"index": False, "float_format": "{:.3g}".format}
    print(f"CPU, float32; {torch.get_num_threads()} threads, torch {torch.__version__}")
    if "linears" in names:
        print("one linear, one token: CSR × as fast as dense, by share of non-zeros")
        print(linears().to_string(float_format="{:.2f}".format))
    if not (names := [name for name in names if name != "linears"]):
        return
    print("\nCSR for every linear; tokens/s")
    print(table(names, "cpu", torch.float32, SPARSITIES, densest=1.0).to_string(**show))
    print("\nfiles in bfloat16, save_sparse relative to save")
    print(files(names).to_string(**show))
    if torch.cuda.is_available():
        print(f"\n{torch.cuda.get_device_name()}, bfloat16, 2:4; tokens/s")
        print(table(names, "cuda", torch.bfloat16, ("2:4",)).to_string(**show))


if __name__ == "__main__":
    main()
