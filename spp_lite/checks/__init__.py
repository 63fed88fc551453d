"""Self-checks of the notebooks' exercises: each says in words what is wrong, and accepts every right variant."""

from .common import CheckFailed as CheckFailed
from .factors import ex_05a as ex_05a
from .factors import ex_05b as ex_05b
from .factors import ex_05c as ex_05c
from .real import ex_09a as ex_09a
from .real import ex_09b as ex_09b
from .results import ex_08a as ex_08a
from .results import ex_08b as ex_08b
from .start import ex_00a as ex_00a
from .start import ex_00b as ex_00b
