"""python -m spp_lite.cli COMMAND …: as python -m spp_lite."""

import sys

from . import main

sys.exit(main())
