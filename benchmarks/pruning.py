"""Speed of pruning against the papers' looped form:  python -m benchmarks.pruning

The references are written here from the papers' code: the loop over groups of columns, the stable full sort, one run of
SparseGPT per weight. Two blocks of LLaMA-7B's shape whose weights lie on disk: seconds and peak memory of each criterion,
in a process each; on a CUDA GPU one block there.
"""

import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import torch
import transformers

import spp_lite
from spp_lite.models import peak_memory
from spp_lite.pruning.criteria import inverse_factor, sparsegpt_together
from spp_lite.pruning.sparsity import Sparsity

from . import seconds


def nm_loop(scores, n, m):
    """Wanda's and SparseGPT's form: one topk for every m columns."""
    drop = torch.zeros_like(scores, dtype=torch.bool)
    for i in range(0, scores.shape[1], m):
        drop.scatter_(1, i + torch.topk(scores[:, i : i + m], m - n, dim=1, largest=False)[1], True)
    return ~drop


def wanda_sort(scores, ratio):
    """Wanda's form: a stable sort of every row."""
    drop = torch.zeros_like(scores, dtype=torch.bool)
    order = torch.sort(scores, dim=-1, stable=True)[1]
    return ~drop.scatter_(1, order[:, : int(scores.shape[1] * ratio)], True)


def sparsegpt_loop(weight, hessian, ratio, n, m, block=128, damping=0.01):
    """SparseGPT's `fasterprune`: column by column; a ratio (n = 0) or n:m."""
    weight, hessian = weight.clone(), hessian.clone()
    columns = weight.shape[1]
    diagonal = torch.arange(columns)
    dead = torch.diag(hessian) == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    hessian[diagonal, diagonal] += damping * torch.mean(torch.diag(hessian))
    inverse = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)
    for first in range(0, columns, block):
        part, upper = weight[:, first : first + block].clone(), inverse[first : first + block, first : first + block]
        kept, errors, mask = torch.zeros_like(part), torch.zeros_like(part), torch.zeros_like(part, dtype=torch.bool)
        if not n:
            scores = part**2 / torch.diag(upper).reshape(1, -1) ** 2
            mask = scores <= torch.sort(scores.flatten())[0][int(scores.numel() * ratio) - 1]
        for i in range(part.shape[1]):
            if n and i % m == 0:
                scores = part[:, i : i + m] ** 2 / torch.diag(upper)[i : i + m].reshape(1, -1) ** 2
                mask.scatter_(1, i + torch.topk(scores, m - n, dim=1, largest=False)[1], True)
            column = part[:, i].clone()
            column[mask[:, i]] = 0
            error = (part[:, i] - column) / upper[i, i]
            part[:, i:] -= error.unsqueeze(1).matmul(upper[i, i:].unsqueeze(0))
            kept[:, i], errors[:, i] = column, error
        weight[:, first : first + block] = kept
        weight[:, first + block :] -= errors.matmul(inverse[first : first + block, first + block :])
    return weight


def row(name, wanted, ours, reference, same):
    """One line of the table; `same`: share of entries where both masks agree."""
    mine, theirs = seconds(ours, reference, repeats=5)
    agree = float((same[0]() == same[1]()).float().mean())
    return {
        "what": name,
        "seconds": mine,
        "reference": theirs,
        "ratio": theirs / mine,
        "wanted": wanted,
        "masks equal": agree,
    }


def masks(rows):
    """N:M and unstructured masks of a 4096² weight."""
    torch.manual_seed(0)
    scores = torch.randn(4096, 4096).abs()
    for text in ("2:4", "4:8", "2:8", "1:4"):
        pattern = Sparsity.parse(text)
        both = (lambda p=pattern: p.mask(scores)), (lambda p=pattern: nm_loop(scores, p.n, p.m))
        rows.append(row(f"{text} mask, 4096²", 3, *both, both))
    for ratio in (0.5, 0.75):
        both = (lambda r=ratio: Sparsity(r).mask(scores, per_row=True)), (lambda r=ratio: wanda_sort(scores, r))
        rows.append(row(f"Wanda {ratio:.0%} mask, 4096²", 4, *both, both))


def sparsegpt(rows):
    """q, k, v of width 2048: one input, one factor, one walk; against three runs of the reference."""
    torch.manual_seed(0)
    weights = [torch.randn(2048, 2048) for _ in range(3)]
    inputs = torch.randn(4096, 2048) * torch.linspace(0.2, 3, 2048)
    hessian = 2 / 4096 * inputs.T @ inputs
    for text in ("50%", "2:4"):
        pattern = Sparsity.parse(text)

        def ours(pattern=pattern):
            return sparsegpt_together(weights, *inverse_factor(hessian), [pattern] * 3)

        def reference(pattern=pattern):
            n, m = pattern.n or 0, pattern.m or 0
            return [sparsegpt_loop(weight, hessian, pattern.ratio, n, m) for weight in weights]

        same = (lambda run=ours: torch.cat(run()) == 0), (lambda run=reference: torch.cat(run()) == 0)
        rows.append(row(f"SparseGPT {text}, q k v of 2048", 3, ours, reference, same))


def llama_block(tokens=128 * 2048):
    """One LLaMA-7B block, random weights, bfloat16: seconds and peak memory of each criterion, and for 32 blocks."""
    config = transformers.LlamaConfig(num_hidden_layers=1, vocab_size=1024)
    batches = [torch.randint(0, 1024, (1, 2048)) for _ in range(tokens // 2048)]
    rows = []
    for method in ("magnitude", "wanda", "sparsegpt"):
        model = transformers.LlamaForCausalLM(config).to("cuda", torch.bfloat16)
        torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        spp_lite.prune(model, batches, "2:4", method=method, progress=False)
        torch.cuda.synchronize()
        taken, peak = time.perf_counter() - start, torch.cuda.max_memory_allocated() / 2**30
        rows.append({"method": method, "seconds": taken, "32 blocks (min)": 32 * taken / 60, "peak GiB": peak})
    return pd.DataFrame(rows)


def write_blocks(folder):
    """Two blocks of LLaMA-7B's shape, random weights, float32, in safetensors: 405 million weights in their linears."""
    config = transformers.LlamaConfig(num_hidden_layers=2, vocab_size=1024)
    torch.manual_seed(0)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)


def offloaded(folder, method, sparsity="2:4", tokens=8 * 512):
    """Prune write_blocks()'s model while its weights lie on disk; print method, seconds to load and a block, GiB, zeros."""
    start = time.perf_counter()
    places = {"model.embed_tokens": "cpu", "model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "cpu"}
    places |= {f"model.layers.{number}": "disk" for number in range(2)}
    more = {"device_map": places, "offload_folder": Path(folder) / method, "dtype": torch.float32}
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, **more)
    loaded = time.perf_counter() - start
    batches = [torch.randint(0, 1024, (1, 512)) for _ in range(tokens // 512)]
    start = time.perf_counter()
    report = spp_lite.prune(model, batches, sparsity, method=method, progress=False)
    block = (time.perf_counter() - start) / 2
    print(f"{method:9} {loaded:5.0f} s to load, {block:5.0f} s a block, peak {peak_memory() / 2**30:.1f} GiB, {report}")


def main():
    """Print the tables."""
    rows: list[dict] = []
    masks(rows)
    sparsegpt(rows)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; median of 5, seconds")
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.3f}".format))
    print("two blocks of LLaMA-7B's shape, float32, on disk; 8 windows of 512 tokens")
    with tempfile.TemporaryDirectory() as folder:
        write_blocks(folder)
        for method in ("magnitude", "wanda", "sparsegpt"):
            process = get_context("spawn").Process(target=offloaded, args=(folder, method))
            process.start()
            process.join()
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name())
        print(llama_block().to_string(index=False, float_format="{:.2f}".format))


if __name__ == "__main__":
    main()
