"""What the notebooks show, let you drag, and check; and, beside the ten public names, the parts they open up."""

from ..adapter.kernels import effective_weight, row_blocks
from ..cli import main
from ..cli.finetune import FinetuneArguments
from ..experiment.baselines import attach
from ..experiment.plotting import LOOKS, plot_accuracy_vs_sparsity, plot_paired, plot_parameters, plot_tasks
from ..experiment.recipe import Recipe, Run
from ..experiment.runs import do_run
from ..experiment.statistics import paired, summarise
from ..experiment.table import choose_rates, write_table
from ..models import embedded, is_tiny, load_tokenizer, resolve, save
from ..pruning.allocation import budget
from ..pruning.blocks import block_linears, zeros
from ..pruning.calibration import walk
from ..pruning.criteria import inverse_factor, sparsegpt, sparsegpt_together
from ..pruning.sparsity import SparsityError, measure
from ..recover.data import (
    PROMPT,
    PROMPT_WITH_INPUT,
    calibration_batches,
    default_texts,
    prompt,
    read_texts,
    tokenize,
    tokenize_records,
)  # fmt: skip
from ..recover.evaluation import average_accuracy, chance_accuracy, default_tasks
from ..recover.training import default_arguments
from . import checks
from .checks.common import yours
from .figures import parameter_table, plot_training
from .widgets import Guess, show
