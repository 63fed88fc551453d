"""spp-lite prune."""

from . import watched
from .cli_runs import Several, add_calibration, add_device_map, add_model, calibration, path


def add(parser) -> None:
    """The options of `spp-lite prune`."""
    add_model(parser)
    add_device_map(parser)
    parser.add_argument("--sparsity", required=True, help="50%%, 0.75, 2:4, …")
    parser.add_argument("--method", default="wanda", help="magnitude, wanda or sparsegpt")
    parser.add_argument("--skip", action=Several, default=(), help="name patterns of linears to leave dense")
    parser.add_argument("--only", action=Several, default=(), help="name patterns of the only linears to prune")
    parser.add_argument(
        "--allocation", action=Several, default=["uniform"], help="uniform, owl, or '*.down_proj=40%%' …"
    )
    add_calibration(parser)
    parser.add_argument("--out", type=path, required=True, help="folder to write")


def run(options) -> None:
    """Prune, save, and print the report."""
    from .. import Sparsity, load, prune
    from ..models import load_tokenizer, model_name, require_writable, resolve, save, stored_type
    from ..pruning.prune import METHODS

    sparsity = Sparsity.parse(options.sparsity)
    if options.method not in METHODS:
        raise ValueError(f"method {options.method!r} is none of {', '.join(METHODS)}")
    folder = require_writable(options.out, model=True, keep=(model_name(options.model),))
    given = dict(pair.rsplit("=", 1) for pair in options.allocation if "=" in pair)
    if len(given) < len(options.allocation) > 1:
        way = "each once" if all("=" in pair for pair in options.allocation) else "or one word alone"
        raise ValueError(f"--allocation {' '.join(options.allocation)}: give pairs pattern=ratio, {way}")
    tokenizer = load_tokenizer(resolve(options.model))
    batches = None if options.method == "magnitude" else calibration(options, tokenizer)
    model, tokenizer = load(options.model, device_map=options.device_map)
    kind = model.dtype if options.method == "sparsegpt" else stored_type(model, options.model)  # it changes what stays
    size = kind.itemsize * sum(weight.numel() for weight in model.parameters())
    require_writable(folder, model=True, size=size)
    chosen = {"skip": options.skip, "only": options.only, "allocation": given or options.allocation[0]}
    report = prune(model, batches, sparsity, method=options.method, progress=watched(), **chosen)
    model = model if model.dtype == kind else model.to(kind)
    save(model, tokenizer, folder, finish=lambda new: report.table.to_csv(new / "pruning_report.csv", index=False))
    print(report.table.to_string(index=False, float_format="{:.4f}".format))
    print(report)
    print(f"wrote the pruned model ({str(model.dtype)[6:]}, {size / 1e9:.2g} GB) and pruning_report.csv to {folder}")
