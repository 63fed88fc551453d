"""Self-checks of the notebooks' exercises: each says in words what is wrong, and accepts every right variant."""

from .common import CheckFailed as CheckFailed
from .factors import ex_05a as ex_05a
from .factors import ex_05b as ex_05b
from .factors import ex_05c as ex_05c
from .layer import ex_02a as ex_02a
from .layer import ex_02b as ex_02b
from .lora import ex_04a as ex_04a
from .lora import ex_04b as ex_04b
from .matrix import ex_01a as ex_01a
from .matrix import ex_01b as ex_01b
from .merging import ex_07a as ex_07a
from .merging import ex_07b as ex_07b
from .model import ex_03a as ex_03a
from .model import ex_03b as ex_03b
from .real import ex_09a as ex_09a
from .real import ex_09b as ex_09b
from .results import ex_08a as ex_08a
from .results import ex_08b as ex_08b
from .start import ex_00a as ex_00a
from .start import ex_00b as ex_00b
from .training import ex_06a as ex_06a
from .training import ex_06b as ex_06b
from .training import ex_06c as ex_06c
