"""spp-lite merge."""

from pathlib import Path

from .cli_runs import add_model


def add(parser) -> None:
    """The options of `spp-lite merge`."""
    add_model(parser)
    parser.add_argument("--adapter", required=True, help="folder that finetune wrote")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")


def run(options) -> None:
    """Merge, prove, save."""
    from .. import load, merge
    from ..adapter import load_adapter
    from ..models import require_writable, save

    folder = require_writable(options.out, model=True, keep=(options.model, options.adapter))
    model, tokenizer = load(options.model)
    merged, report = merge(load_adapter(model, options.adapter))
    print(report.table.to_string(index=False, float_format="{:.4f}".format))
    print(f"wrote the merged model to {save(merged, tokenizer, folder)}")
