"""python -m spp_lite COMMAND …: the same as spp-lite, for `accelerate launch -m spp_lite finetune …`."""

import sys

from .cli import main

sys.exit(main())
