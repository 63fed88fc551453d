"""Runs first in every kernel that the tests start: no network, and a note of the peak memory after each cell."""

import os
import sys


def _refuse(event, args):
    if event == "socket.getaddrinfo" and args[0] not in (None, "", "localhost", "127.0.0.1", "::1"):
        raise OSError(f"the notebooks must work offline: {args[0]} was asked for")
    if event == "socket.connect" and isinstance(args[1], tuple) and args[1][0] not in ("127.0.0.1", "::1"):
        raise OSError(f"the notebooks must work offline: a connection to {args[1][0]} was tried")


def _note_peak_memory(*_):
    folder = os.environ.get("SPP_NOTEBOOK_PEAKS")
    if folder and os.path.exists("/proc/self/status"):
        with open("/proc/self/status") as status, open(os.path.join(folder, str(os.getpid())), "w") as note:
            note.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))


sys.addaudithook(_refuse)
get_ipython().events.register("post_run_cell", _note_peak_memory)  # noqa: F821
