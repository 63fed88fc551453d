"""spp-lite evaluate."""

from .cli_runs import add_device_map, add_model, add_scores, at_least, path


def add(parser) -> None:
    """The options of `spp-lite evaluate`."""
    add_model(parser)
    add_device_map(parser)
    parser.add_argument("--adapter", help="adapter folder")
    add_scores(parser)
    words = "tokens a window of the text (default: what the model takes, at most 2048; published numbers tell theirs)"
    parser.add_argument("--text-window", type=at_least(2), help=words)
    parser.add_argument("--out", type=path, help="CSV to write")


def run(options) -> None:
    """Score, print, and write the table where asked."""
    import pandas as pd

    from .. import evaluate, load, perplexity
    from ..adapter import load_adapter
    from ..experiment import write_table
    from ..recover.data import read_texts
    from ..recover.evaluation import default_tasks

    tasks = options.tasks or (["none"] if options.text else default_tasks(options.model))
    texts = read_texts(options.text) if options.text else []
    _check(options, tasks, texts)
    model, tokenizer = load(options.model, device_map=options.device_map)
    if options.adapter is not None:
        model = load_adapter(model, options.adapter).eval()
    tables = []
    if texts:  # first: what it refuses costs no finished scores
        asked = {"length": options.text_window, "tokens": options.text_tokens}
        value = perplexity(model, tokenizer, texts, **asked, progress=options.progress)
        tables.append(pd.DataFrame([{"task": options.text.name, "metric": "perplexity", "value": value}]))
    if tasks != ["none"]:
        tables.insert(0, evaluate(model, tokenizer, tasks, limit=options.limit, progress=options.progress))
    table = pd.concat(tables, ignore_index=True)
    if options.out:  # before anything is printed: a pipe may close
        write_table(table, options.out)
    print(table.to_string(index=False, float_format="{:.4f}".format))
    if options.out:
        print(f"wrote {options.out}")


def _check(options, tasks: list[str], texts: list[str]) -> None:
    """Raise ValueError now, not after scoring, for what leaves nothing to score or nowhere to write."""
    from ..models import require_writable
    from ..recover.evaluation import load_tasks, text_file

    if tasks == ["none"] and not texts:
        raise ValueError("nothing to score: name --tasks, or a --text for perplexity")
    if texts and tasks != ["none"]:
        load_tasks(tasks)
    for name in ("text_tokens", "text_window") if not texts else ():
        if getattr(options, name):
            raise ValueError(f"--{name.replace('_', '-')} has no effect without a --text")
    if options.out:
        require_writable(options.out.parent)
        asked = options.text, *map(text_file, options.tasks or ())
        if options.out.is_dir() or options.out.resolve() in [path.resolve() for path in asked if path]:
            raise ValueError(
                f"--out {options.out} is {'a folder' if options.out.is_dir() else 'the text'}: name another file"
            )
