"""How the tests run a notebook."""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
WARM = Path(__file__).with_name("warm.py")


@pytest.fixture(scope="session")
def warm():
    """The name of a kernel that starts with the notebooks' imports done (warm.py); "python3" where nothing forks."""
    if not hasattr(os, "fork"):
        yield "python3"
        return
    with tempfile.TemporaryDirectory(prefix="spp-", dir="/tmp") as folder, pytest.MonkeyPatch.context() as patch:
        address = f"{folder}/door"  # short: a socket's name has 104 letters at most
        with socket.socket(socket.AF_UNIX) as door:
            door.bind(address)
            door.listen()
            command = [sys.executable, WARM, "--serve", str(door.fileno())]
            server = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[door.fileno()])
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(address)
            asked.shutdown(socket.SHUT_WR)
            assert asked.recv(1) == b"" and server.poll() is None, "the warm process ended"
        spec = Path(folder) / "kernels" / "warm" / "kernel.json"
        spec.parent.mkdir(parents=True)
        argv = [sys.executable, str(WARM), address, "-f", "{connection_file}"]
        spec.write_text(json.dumps({"argv": argv, "display_name": "warm", "language": "python"}))
        patch.setenv("JUPYTER_PATH", folder, prepend=os.pathsep)
        yield "warm"
        server.stdin.close()
        server.wait(30)


@pytest.fixture
def execute(request):
    """A function that runs a notebook in the notebooks' folder, in a warm kernel unless another is named; no cell is
    stopped for being slow."""

    def run(notebook, kernel=None, **options):
        place = {"metadata": {"path": str(FOLDER)}}
        kernel = kernel or request.getfixturevalue("warm")
        waits = {"timeout": None, "startup_timeout": 3600}
        NotebookClient(notebook, kernel_name=kernel, resources=place, **waits, **options).execute()
        return notebook

    return run
