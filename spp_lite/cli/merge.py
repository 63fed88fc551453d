"""spp-lite merge."""

from .cli_runs import add_model, path


def add(parser) -> None:
    """The options of `spp-lite merge`."""
    add_model(parser)
    parser.add_argument(
        "--adapter", help="folder that finetune wrote; without one, --dense or --sparse rewrites the model"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--dense", action="store_true", help="write a plain model folder (the default with an adapter)")
    form.add_argument("--sparse", action="store_true", help="write mask bits and kept values: half the size at 2:4")
    parser.add_argument("--out", type=path, required=True, help="folder to write")


def run(options) -> None:
    """Merge, prove, save."""
    from .. import load, merge
    from ..adapter import load_adapter
    from ..models import load_sparse, model_name, require_writable, resolve, save
    from ..packed import packed_files, save_sparse

    if not (options.adapter or options.dense or options.sparse):
        raise ValueError("nothing to merge: name the --adapter, or rewrite the model alone with --dense or --sparse")
    write = save_sparse if options.sparse else save
    folder = require_writable(options.out, model=True, keep=(model_name(options.model), options.adapter))
    if not options.adapter:
        source = resolve(options.model)
        model, tokenizer = (load_sparse if packed_files(source) else load)(source, dtype="auto")  # bit for bit
        print(f"wrote the model to {write(model, tokenizer, folder)}")
        return
    model, tokenizer = load(options.model)
    adapted = load_adapter(model, options.adapter)
    config = adapted.active_peft_config
    merged, report = merge(adapted)
    write(merged, tokenizer, folder, card=_card(options, config, report))  # before it is told: a pipe may close
    print(report.table.to_string(index=False, float_format="{:.4f}".format))
    print(f"wrote the merged model to {folder}")


def _card(options, config, report) -> str:
    """The README.md of a merged model: what it is made of, what was proved, whose licence holds."""
    import json

    from ..convert import PACKAGED
    from ..models import environment, model_name
    from ..recover.checkpoints import NOTE

    base, table = model_name(options.model), report.table
    note = path(options.adapter) / NOTE
    try:
        made = json.loads(note.read_text())
    except (OSError, ValueError):  # no note, or one that was cut short
        made = {}
    known = ("model", "data", "steps", "seed", "batch", "cutoff", "form", "r", "scaling")
    settings = ", ".join(f"{name} {made[name]}" for name in known if name in made)
    licence = PACKAGED[base].licence if base in PACKAGED else "that of its base model"
    versions = ", ".join(f"{name} {value}" for name, value in list(environment().items())[2:6])
    return (
        f"# {options.out.name}\n\n{base}, pruned, then fine-tuned with {config.peft_type.value} and merged by spp_lite.\n\n"
        f"- Proof: {len(table)} linears, patterns {', '.join(sorted(set(table['pattern'])))}; zeros "
        f"{table['before'].mean():.2%} before and {table['after'].mean():.2%} after (mean of the linears), none refilled; "
        f"logits off by {report.logits_error:.1e} of the largest ({report.tolerance:g} allowed).\n"
        f"- Settings: {settings or 'not recorded'}.\n- Versions: {versions}.\n- Licence: {licence}.\n"
    )
