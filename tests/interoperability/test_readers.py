"""Results read by the programs of others, bit for bit."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import hdf5plugin
import netCDF4
import numpy as np
import pytest
import torch
import xarray

import pipeline
from pipeline.functions.record import Function

pytestmark = pytest.mark.slow
# importing netCDF4 sets it for every process that is started later
UNPLUGGED = {name: text for name, text in os.environ.items() if name != "HDF5_PLUGIN_PATH"}
POINTS = torch.linspace(-1, 1, 60, dtype=torch.float64).reshape(20, 3)
NAMED = Function(
    "named", lambda: lambda x: torch.stack([torch.sin(x).prod(), torch.log(x[0])]), n=3,
    output_shape=(2,), input_names=("a", "b", "ç"), output_names=("u", "v"), input_units="m", output_units="J",
)  # fmt: skip


def scalar(x):
    return (torch.exp(x[0]) * x[1] ** 2 * x[2]).sum()


@pytest.fixture(scope="module", params=["whole", "virtual"])
def form(request):
    return request.param


@pytest.fixture(scope="module", params=["scalar", "named", "float32", "gzip", "zstd"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def stored(kind, form, tmp_path_factory):
    """Results in every form that they have; with NaN, with names and units, compressed."""
    place = tmp_path_factory.mktemp("stored")
    function = NAMED if kind == "named" else scalar
    points = POINTS.float() if kind == "float32" else POINTS
    store = {"compression": kind} if kind in ("gzip", "zstd") else {}
    with pytest.MonkeyPatch.context() as patch:
        if form == "virtual":
            patch.setattr("pipeline.store.writing.assembly.SMALL", 0)
        operators = ["value", "jacobian", "hessian"]
        with pipeline.run(
            function, points, operators, output_dir=place, shard_rows=6, store=store
        ) as results:
            assert len(results.files) == (4 if form == "virtual" else 1)
            return results.path, {name: results[name][:] for name in results.names}


@pytest.fixture
def plugged(kind):
    """The environment in which programs read the file: with a filter for zstd where it is needed."""
    filters = {"HDF5_PLUGIN_PATH": hdf5plugin.PLUGIN_PATH} if kind == "zstd" else {}
    return {**UNPLUGGED, **filters}


def program(name, package):
    found = shutil.which(name)
    if found is None:
        give_up(f"{name} not found: apt-get install {package}")
    return found


def give_up(reason):
    if os.environ.get("CI"):
        pytest.fail(f"CI has to run this test: {reason}")
    pytest.skip(reason)


def said_by(*command, **keywords):
    done = subprocess.run(command, capture_output=True, check=False, timeout=120, **keywords)
    assert done.returncode == 0, done.stderr
    assert not done.stderr, done.stderr
    return done.stdout


def require_same(seen, expected):
    assert seen.dtype == expected.dtype
    assert np.array_equal(seen, expected, equal_nan=expected.dtype.kind == "f")


def test_h5py_alone(stored):
    path, expected = stored
    with h5py.File(path) as file:
        for name, values in expected.items():
            require_same(file[name][()], values)
            assert file[name].dims[0][0].name == "/point"


@pytest.mark.parametrize("engine", ["h5netcdf", "netcdf4"])
def test_xarray(stored, engine):
    path, expected = stored
    with xarray.open_dataset(path, engine=engine) as data:
        for name, values in expected.items():
            require_same(data[name].values, values)
        assert data["hessian"].dims[-2:] == ("input", "input_2")


def test_netcdf4(stored):
    path, expected = stored
    with netCDF4.Dataset(path) as data:
        data.set_auto_mask(False)
        for name, values in expected.items():
            require_same(data[name][:], values)


def test_ncdump(stored, plugged):
    path, expected = stored
    tool = program("ncdump", "netcdf-bin")
    text = said_by(tool, "-p", "9,17", "-v", "jacobian", str(path), text=True, env=plugged)
    (block,) = re.findall(r"\n jacobian =(.*?);", text, flags=re.DOTALL)
    seen = np.array(
        [float(word.replace("NaNf", "nan")) for word in block.replace(",", " ").split()]
    )
    values = expected["jacobian"]
    require_same(seen.astype(values.dtype).reshape(values.shape), values)


def test_h5dump_of_hdf5_1_10(stored, plugged, tmp_path):
    path, expected = stored
    tool = program("h5dump", "hdf5-tools")
    for name, values in expected.items():
        raw = tmp_path / name
        words = ("-d", f"/{name}", "-b", "LE", "-o", str(raw), str(path))
        said_by(tool, *words, cwd=path.parent, env=plugged)
        require_same(np.fromfile(raw, values.dtype).reshape(values.shape), values)


H5WASM = """
import h5wasm from "h5wasm/node";
const module = await h5wasm.ready;
PLUGINS
const file = new h5wasm.File(process.argv[2], "r");
const answer = {};
for (const name of process.argv.slice(3)) {
  const {shape, value} = file.get(name);
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  answer[name] = {shape, hex: bytes.toString("hex")};
}
console.log(JSON.stringify(answer));
file.close();
"""
USE_PLUGINS = """
import {install_local_plugins} from "h5wasm-plugins/index.mjs";
install_local_plugins(module);
"""


@pytest.fixture(scope="module")
def h5wasm(tmp_path_factory):
    """A folder of node with the newest h5wasm in it."""
    return node_folder(tmp_path_factory.mktemp("node"), "", "h5wasm")


@pytest.fixture(scope="module")
def h5wasm_plugins(tmp_path_factory):
    """A folder of node with the newest h5wasm that has plugins."""
    packages = ("h5wasm@0.8", "h5wasm-plugins@0.2")
    return node_folder(tmp_path_factory.mktemp("node"), USE_PLUGINS, *packages)


def node_folder(folder, plugins, *packages):
    install = ["npm", "install", "--silent", "--prefix", str(folder), *packages]
    program("npm", "npm")
    done = subprocess.run(install, capture_output=True, timeout=120, check=False)
    if done.returncode:
        give_up(f"{packages} cannot be installed: {done.stderr[-200:]}")
    (folder / "read.mjs").write_text(H5WASM.replace("PLUGINS", plugins))
    return folder


@pytest.mark.timeout(300)
def test_h5wasm(stored, kind, h5wasm, h5wasm_plugins):
    path, expected = stored
    folder = h5wasm_plugins if kind == "zstd" else h5wasm
    answer = json.loads(said_by("node", "read.mjs", str(path), *expected, cwd=folder))
    for name, values in expected.items():
        seen = np.frombuffer(bytes.fromhex(answer[name]["hex"]), values.dtype)
        require_same(seen.reshape(answer[name]["shape"]), values)


BARE = """
import sys, h5py, xarray
try:
    {statement}
except OSError as error:
    sys.exit(f"refused: {{error}}")
"""


@pytest.mark.parametrize("kind", ["zstd"], indirect=True, scope="module")
@pytest.mark.parametrize(
    "statement",
    [
        "h5py.File(sys.argv[1])['hessian'][()]",
        "xarray.open_dataset(sys.argv[1], engine='h5netcdf')['hessian'].values",
    ],
)
def test_what_has_to_be_told_where_zstd_is(stored, plugged, statement):
    """Without the filter nobody gives numbers; with it everybody does."""
    path, _ = stored
    reader = [sys.executable, "-c", BARE.format(statement=statement), str(path)]
    bare = subprocess.run(reader, capture_output=True, text=True, check=False, env=UNPLUGGED)
    assert bare.returncode == 1
    assert "refused: " in bare.stderr
    said_by(*reader, env=plugged)


@pytest.mark.parametrize("kind", ["zstd"], indirect=True, scope="module")
def test_command_line_tools_refuse_zstd_without_its_filter(stored):
    path, _ = stored
    dump = (program("h5dump", "hdf5-tools"), "-d", "/hessian", str(path))
    for command in ((program("ncdump", "netcdf-bin"), "-v", "hessian", str(path)), dump):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=UNPLUGGED)
        assert done.returncode != 0
        assert "error" in done.stderr.lower()


def test_nothing_newer_than_matlab_and_hdf5_1_8_read(stored, kind):
    path, expected = stored
    files = [path, *sorted(Path(path.parent, "shards").glob("*.h5"))]
    for one in files:
        with h5py.File(one) as file:
            assert one.read_bytes()[8] == 0, "superblock version"
            file.visititems(_require_old)
            compressed = kind in ("gzip", "zstd") and not file["hessian"].is_virtual
            for name in expected:
                assert (file[name].chunks is not None) == compressed


def _require_old(name, stored):
    assert re.fullmatch(r"[A-Za-z]\w{0,62}", name.rpartition("/")[2]), "a name that MATLAB takes"
    if isinstance(stored, h5py.Dataset):
        assert 0 not in stored.shape
        assert stored.dtype.kind in "fiuO"
        assert stored.dtype.kind != "O" or h5py.check_string_dtype(stored.dtype) is not None
