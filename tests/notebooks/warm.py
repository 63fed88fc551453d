"""Warm kernels: a process that has imported what every notebook imports forks a kernel for each that asks.

    python warm.py --serve DOOR        the process, on a listening socket's number, until its standard input ends
    python warm.py ADDRESS -f FILE …   what Jupyter starts in a kernel's place; lives as long as its kernel

A kernel of its own spends ten seconds of the processor on imports. The complete editions, under nbmake, still do: they
show that each starts from nothing.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading

IMPORTS = (  # what the ten notebooks have in common, and what their first call of evaluate() brings
    "spp_lite", "spp_lite.teaching", "spp_lite.recover.evaluation", "spp_lite.recover.training",
    "lm_eval.evaluator", "lm_eval.models.huggingface", "lm_eval.tasks",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "ipywidgets", "ipykernel.kernelapp",
)  # fmt: skip


def serve(door: socket.socket) -> None:
    """Fork a kernel for every connection; ends with whoever holds the other end of standard input."""
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # read once, as a kernel sets it
    for name in IMPORTS:
        importlib.import_module(name)
    while door in select.select([door, sys.stdin], [], [])[0]:
        asked, _ = door.accept()
        if os.fork() == 0:
            door.close()
            kernel(asked)
        asked.close()
        with contextlib.suppress(ChildProcessError):  # none is left
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def kernel(asked: socket.socket) -> None:
    """Be the kernel that was asked for: its folder, its environment, its arguments."""
    from ipykernel.kernelapp import IPKernelApp

    line = asked.makefile().readline()
    if not line:  # it was asked whether this process is ready
        os._exit(0)
    told = json.loads(line)
    os.setsid()
    os.chdir(told["folder"])
    os.environ.clear()
    os.environ.update(told["environment"])
    threading.Thread(target=lambda: (asked.recv(1), os._exit(1)), daemon=True).start()
    sys.argv = ["ipykernel_launcher", *told["arguments"]]
    IPKernelApp.launch_instance([*told["arguments"], "--IPKernelApp.parent_handle=1"])  # 1: it watches no parent itself
    os._exit(0)


def ask(address: str, arguments: list[str]) -> None:
    """Ask for a kernel and wait for its end; whoever stops this process stops the kernel."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which Jupyter sends before a shutdown
    told = {"folder": os.getcwd(), "environment": dict(os.environ), "arguments": arguments}
    with socket.socket(socket.AF_UNIX) as asked:
        asked.connect(address)
        asked.sendall(json.dumps(told).encode() + b"\n")
        asked.recv(1)


if __name__ == "__main__":
    del sys.path[0]  # this folder, which no notebook sees
    if sys.argv[1] == "--serve":
        serve(socket.socket(fileno=int(sys.argv[2])))
        os._exit(0)
    else:
        ask(sys.argv[1], sys.argv[2:])
