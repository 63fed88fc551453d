"""Self-checks of the notebooks' exercises: each says in words what is wrong, and accepts every right variant."""

from .common import CheckFailed as CheckFailed
from .start import ex_00a as ex_00a
from .start import ex_00b as ex_00b
from .results import ex_08a as ex_08a
from .results import ex_08b as ex_08b
