"""What notebooks 01 and 02 show of SmolLM2's weights and inputs:  python -m data.build.layers --calibration c4.jsonl

A row for each linear, numbers only; the columns are those of spp_lite/teaching/labs/tails.py. Two to three minutes on one core.
"""

import argparse
from pathlib import Path

from spp_lite import load
from spp_lite.experiment.table import write_table
from spp_lite.models import embedded
from spp_lite.recover.data import calibration_batches, read_texts
from spp_lite.teaching.labs.tails import inputs_of, weights_of


def main(arguments: list[str] | None = None) -> None:
    """Measure the model and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2", help="a name, folder or file that load() takes")
    parser.add_argument("--calibration", type=Path, required=True, help="texts: .jsonl with 'text', or plain")
    parser.add_argument("--calibration-samples", type=int, default=32)
    parser.add_argument("--calibration-length", type=int, default=512)
    parser.add_argument("--out", type=Path, default=embedded("results", "smollm2") / "layers.csv")
    given = parser.parse_args(arguments)
    model, tokenizer = load(given.model)
    windows = {"samples": given.calibration_samples, "length": given.calibration_length}
    batches = calibration_batches(read_texts(given.calibration), tokenizer, **windows)
    table = weights_of(model).join(inputs_of(model, batches)).round(4)
    write_table(table.reset_index(), given.out)
    print(f"{len(table)} linears → {given.out}")


if __name__ == "__main__":
    main()
