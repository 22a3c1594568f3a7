"""Data files beside a plugin: other data is another run, however the files are read."""

import os

import h5py
import numpy as np
import pytest
import torch

import pipeline
from pipeline.errors import FunctionError
from pipeline.functions.bound import bind_function
from pipeline.functions.files_read import digest_with_files, files_read
from pipeline.functions.record import Function
from pipeline.registry import build_registry

PLUGIN = """
from pathlib import Path
import numpy as np
import torch
from pipeline import Function, hookimpl

HERE = Path(__file__).parent
{at_import}

def build(scale: float = 1.0):
    {in_build}
    def f(x):
        return scale * float(TABLE[0]) * x.square().sum()
    return f


@hookimpl
def pipeline_functions():
    return [Function("tabled", build, n=2{data})]
"""
READ = 'TABLE = np.loadtxt(HERE / "table.txt", ndmin=1)'
HDF5 = 'import h5py; TABLE = h5py.File(HERE / "table.h5")["t"][()]'
WAYS = {
    "at import": {"at_import": READ, "in_build": "pass", "data": ""},
    "in build": {"at_import": "", "in_build": READ, "data": ""},
    "declared": {"at_import": "", "in_build": HDF5, "data": ', data=["table.h5"]'},
}


def write_table(place, value):
    np.savetxt(place / "table.txt", [value])
    with h5py.File(place / "table.h5", "w") as file:
        file["t"] = [value]


@pytest.mark.parametrize("way", WAYS)
def test_other_data_is_another_run(tmp_path, way):
    plugin = tmp_path / f"{way.replace(' ', '_')}.py"
    plugin.write_text(PLUGIN.format(**WAYS[way]))
    points = torch.ones(3, 2, dtype=torch.float64)
    ids = []
    for value in (2.0, 2.0, 3.0, 2.0):
        write_table(tmp_path, value)
        with pipeline.run(
            "tabled", points, "gradient", plugins=plugin, output_dir=tmp_path / "outputs"
        ) as stored:
            assert np.array_equal(stored.gradient[:], np.full((3, 2), 2 * value))
            ids.append(stored.attrs["run_id"])
    assert ids[0] == ids[1] == ids[3]
    assert ids[2] != ids[0]


def test_what_is_declared_has_to_be_there(tmp_path):
    plugin = tmp_path / "lacking.py"
    plugin.write_text(
        PLUGIN.format(at_import="TABLE = [1]", in_build="pass", data=', data=["no.h5"]')
    )
    record = build_registry([str(plugin)]).function("tabled")
    with pytest.raises(FunctionError, match=r"its data= names .*no.h5, and there is no such file"):
        bind_function(record, {"scale": 1.0}, 2)


def test_code_and_what_is_installed_and_what_is_written_are_no_data(tmp_path):
    (tmp_path / "read").write_text("a")
    with files_read() as found:
        with files_read() as inner:
            (tmp_path / "read").read_text()
        (tmp_path / "written").write_text("b")
        descriptor = os.open(tmp_path / "written", os.O_WRONLY)
        os.close(descriptor)
        (tmp_path / "code.py").write_text("")
        (tmp_path / "code.py").read_text()
        open(torch.__file__.replace("__init__.py", "version.py")).close()  # noqa: PTH123
        open("/proc/self/status").close()  # noqa: PTH123
        (tmp_path / "gone").write_text("")
        (tmp_path / "gone").read_text()
        (tmp_path / "gone").unlink()
    (tmp_path / "after").write_text("")
    (tmp_path / "after").read_text()
    assert found == inner == {tmp_path / "read"}


def test_a_function_without_files_keeps_its_digest(tmp_path):
    assert digest_with_files("abc", ()) == "abc"
    plain = Function("plain", lambda: lambda x: x.sum(), n=2)
    assert bind_function(plain, {}, 2).source_digest == plain.source_digest()
