"""Results read by the programs of others, bit for bit."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import torch
import xarray

import pipeline
from pipeline.function import Function

pytestmark = pytest.mark.slow
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


@pytest.fixture(scope="module", params=["scalar", "named", "float32"])
def stored(request, form, tmp_path_factory):
    """Results in every form that they have; with NaN, with names and units."""
    place = tmp_path_factory.mktemp("stored")
    function = NAMED if request.param == "named" else scalar
    points = POINTS.float() if request.param == "float32" else POINTS
    with pytest.MonkeyPatch.context() as patch:
        if form == "virtual":
            patch.setattr("pipeline.store.result.SMALL", 0)
        operators = ["value", "jacobian", "hessian"]
        with pipeline.run(function, points, operators, output_dir=place, shard_rows=6) as results:
            assert len(results.files) == (4 if form == "virtual" else 1)
            return results.path, {name: results[name][:] for name in results.names}


def program(name, package):
    found = shutil.which(name)
    if found is None and os.environ.get("CI"):
        pytest.fail(f"CI has to run this test: apt-get install {package}")
    if found is None:
        pytest.skip(f"{name} not found: apt-get install {package}")
    return found


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


def test_ncdump(stored):
    path, expected = stored
    text = said_by(
        program("ncdump", "netcdf-bin"), "-p", "9,17", "-v", "jacobian", str(path), text=True
    )
    (block,) = re.findall(r"\n jacobian =(.*?);", text, flags=re.DOTALL)
    seen = np.array(
        [float(word.replace("NaNf", "nan")) for word in block.replace(",", " ").split()]
    )
    values = expected["jacobian"]
    require_same(seen.astype(values.dtype).reshape(values.shape), values)


def test_h5dump_of_hdf5_1_10(stored, tmp_path):
    path, expected = stored
    tool = program("h5dump", "hdf5-tools")
    for name, values in expected.items():
        raw = tmp_path / name
        said_by(tool, "-d", f"/{name}", "-b", "LE", "-o", str(raw), str(path), cwd=path.parent)
        require_same(np.fromfile(raw, values.dtype).reshape(values.shape), values)


H5WASM = """
import h5wasm from "h5wasm/node";
await h5wasm.ready;
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


@pytest.fixture(scope="module")
def h5wasm(tmp_path_factory):
    """A folder of node with h5wasm in it."""
    if shutil.which("npm") is None:
        pytest.skip("npm not found")
    folder = tmp_path_factory.mktemp("node")
    install = ["npm", "install", "--silent", "--prefix", str(folder), "h5wasm"]
    done = subprocess.run(install, capture_output=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"h5wasm cannot be installed: {done.stderr[-200:]}")
    (folder / "read.mjs").write_text(H5WASM)
    return folder


@pytest.mark.timeout(200)
def test_h5wasm(stored, form, h5wasm):
    path, expected = stored
    if form == "virtual":
        pytest.skip("h5wasm sees one file at a time")
    answer = json.loads(said_by("node", "read.mjs", str(path), *expected, cwd=h5wasm))
    for name, values in expected.items():
        seen = np.frombuffer(bytes.fromhex(answer[name]["hex"]), values.dtype)
        require_same(seen.reshape(answer[name]["shape"]), values)


def test_nothing_newer_than_matlab_and_hdf5_1_8_read(stored):
    path, _ = stored
    files = [path, *sorted(Path(path.parent, "shards").glob("*.h5"))]
    for one in files:
        with h5py.File(one) as file:
            assert one.read_bytes()[8] == 0, "superblock version"
            file.visititems(_require_old)


def _require_old(name, stored):
    assert re.fullmatch(r"[A-Za-z]\w{0,62}", name.rpartition("/")[2]), "a name that MATLAB takes"
    if isinstance(stored, h5py.Dataset):
        assert 0 not in stored.shape
        assert stored.chunks is None
        assert stored.dtype.kind in "fiuO"
        assert stored.dtype.kind != "O" or h5py.check_string_dtype(stored.dtype) is not None
