"""The kernels that the tests start have no network; a claim until something asks for it."""

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError


@pytest.mark.parametrize("kernel", ["python3", pytest.param("warm", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "code",
    [
        "import urllib.request; urllib.request.urlopen('http://example.org', timeout=3)",
        "import socket; socket.create_connection(('93.184.215.14', 80), timeout=3)",
    ],
)
def test_a_cell_that_asks_the_network_fails(code, kernel, execute, request):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    kernel = request.getfixturevalue("warm") if kernel == "warm" else kernel
    with pytest.raises(CellExecutionError, match="must work offline"):
        execute(notebook, kernel)
