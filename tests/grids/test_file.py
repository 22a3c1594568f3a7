"""Points of files: every format, every refusal."""

import hashlib
import os
import pickle
import sys

import h5py
import numpy as np
import pytest
import torch

from pipeline.errors import GridError
from pipeline.functions.record import AnySize
from pipeline.grids.file import FileGrid, build_file
from pipeline.grids.kind import Space

DATA = np.arange(12.0).reshape(4, 3) / 7
FIXED = Space(3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_csv(folder, text, name="a.csv"):
    (folder / name).write_text(text, encoding="utf-8")
    return name


def write_h5(folder, name="a.h5", **datasets):
    with h5py.File(folder / name, "w") as file:
        for key, value in datasets.items():
            file[key] = value
    return name


def rows(path, **options):
    return build_file(Space(AnySize()), path, **options)[:].tolist()


@pytest.mark.parametrize("dtype", ["<f8", ">f8", "<f4", "<i4", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(folder, dtype, order):
    array = np.asarray(np.arange(12).reshape(4, 3), dtype=dtype, order=order)
    np.save(folder / "a.npy", array)
    grid = FileGrid("a.npy")
    assert (len(grid), grid.n) == (4, 3)
    assert grid[:].tolist() == array.tolist()
    assert grid[1:3].dtype == torch.float64


def test_one_dimension_is_one_column(folder):
    np.save(folder / "a.npy", DATA[:, 0])
    np.savez(folder / "a.npz", x=DATA[:, 0])
    write_h5(folder, x=DATA[:, 0])
    for name in ("a.npy", "a.npz", "a.h5"):
        assert rows(name) == DATA[:, :1].tolist()


def test_npz(folder):
    np.savez(folder / "one.npz", points=DATA)
    np.savez(folder / "two.npz", x=DATA, y=DATA + 1)
    assert rows("one.npz") == DATA.tolist()
    assert rows("two.npz") == DATA.tolist()
    assert rows("two.npz", dataset="y") == (DATA + 1).tolist()
    assert FileGrid("one.npz").spec["dataset"] == "points"


def test_h5(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file["group/deep"] = DATA
        file.create_dataset("x", data=DATA.astype("f4"), chunks=(2, 3), compression="gzip")
        file["names"] = "text"
    assert rows("a.h5") == DATA.astype("f4").tolist()
    assert rows("a.h5", dataset="/group/deep") == DATA.tolist()
    write_h5(folder, "one.hdf5", only=DATA)
    assert rows("one.hdf5") == DATA.tolist()


@pytest.mark.parametrize(
    "text",
    [
        "1,2.5\n3,4e-1\n",
        "a,b\n1,2.5\n3,4e-1",
        "# a, b\n1,2.5\n\n 3 , 4e-1 \n\n",
        "\ufeffa,b\r\n1,2.5\r\n3,4e-1\r\n",
        '"a","b"\n"1","2.5"\n3,4e-1\n',
    ],
)
def test_csv(folder, text):
    assert rows(write_csv(folder, text)) == [[1.0, 2.5], [3.0, 0.4]]


def test_csv_keeps_every_bit(folder):
    np.savetxt(folder / "a.csv", DATA, delimiter=",", fmt="%.17g")
    assert torch.equal(FileGrid("a.csv")[:], torch.from_numpy(DATA))


def test_columns(folder):
    write_csv(folder, "a,b,c\n1,2,3\n4,5,6\n")
    np.save(folder / "a.npy", DATA)
    assert rows("a.csv", columns=["c", "a"]) == [[3.0, 1.0], [6.0, 4.0]]
    assert rows("a.csv", columns=[1]) == [[2.0], [5.0]]
    assert rows("a.npy", columns=[2, 0]) == DATA[:, [2, 0]].tolist()
    assert FileGrid("a.csv", columns=["c", "a"]).spec["columns"] == [2, 0]


def test_resource_of_a_package(folder, monkeypatch):
    (folder / "pointpackage" / "data").mkdir(parents=True)
    (folder / "pointpackage" / "__init__.py").touch()
    write_csv(folder / "pointpackage" / "data", "1,2\n3,4\n")
    np.save(folder / "pointpackage" / "b.npy", DATA)
    monkeypatch.syspath_prepend(folder)
    assert rows("pkg://pointpackage/data/a.csv") == [[1.0, 2.0], [3.0, 4.0]]
    grid = pickle.loads(pickle.dumps(FileGrid("pkg://pointpackage/b.npy")))
    assert grid[2:].tolist() == DATA[2:].tolist()
    with pytest.raises(GridError, match=r"pkg://pointpackage/c\.csv: the package has no such file"):
        FileGrid("pkg://pointpackage/c.csv")
    with pytest.raises(GridError, match=r"package 'nopackage' cannot be imported"):
        FileGrid("pkg://nopackage/c.csv")
    sys.modules.pop("pointpackage", None)


def test_the_spec_knows_the_content_not_the_place(folder):
    (folder / "sub").mkdir()
    np.save(folder / "a.npy", DATA)
    np.save(folder / "sub" / "b.npy", DATA)
    first, second = FileGrid("a.npy"), FileGrid(str(folder / "sub" / "b.npy"))
    assert first.spec == second.spec
    assert first.spec["sha256"] == hashlib.sha256((folder / "a.npy").read_bytes()).hexdigest()
    np.save(folder / "a.npy", DATA + 1)
    assert FileGrid("a.npy").spec != second.spec


def test_the_directory_may_change_later(folder, monkeypatch):
    np.save(folder / "a.npy", DATA)
    grid = FileGrid("a.npy")
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    assert grid[:1].tolist() == DATA[:1].tolist()


@pytest.mark.parametrize("name", ["a.npy", "a.h5"])
def test_a_file_that_changes_is_noticed(folder, name):
    np.save(folder / "a.npy", DATA)
    write_h5(folder, x=DATA)
    grid = FileGrid(name)
    os.utime(folder / name, ns=(1, 1))
    with pytest.raises(GridError, match="was changed while it was in use; start again"):
        grid[:1]


def make_virtual(folder, source="part.h5"):
    write_h5(folder, "part.h5", x=DATA)
    layout = h5py.VirtualLayout((4, 3), dtype="f8")
    layout[:] = h5py.VirtualSource(source, "x", (4, 3))
    with h5py.File(folder / "whole.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    return "whole.h5"


def test_virtual_dataset(folder):
    name = make_virtual(folder)
    before = FileGrid(name)
    assert before[1:].tolist() == DATA[1:].tolist()
    write_h5(folder, "part.h5", x=DATA + 1)
    assert FileGrid(name).spec != before.spec
    (folder / "part.h5").unlink()
    with pytest.raises(GridError, match=r"takes rows from part\.h5, which is not a file below"):
        FileGrid(name)


def test_numbers_elsewhere_are_refused(folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    write_h5(other, x=DATA)
    with pytest.raises(GridError, match="which is not a file below"):
        FileGrid(make_virtual(folder, str(other / "a.h5")))
    with h5py.File(folder / "link.h5", "w") as file:
        file["x"] = h5py.ExternalLink(str(other / "a.h5"), "x")
    with pytest.raises(GridError, match=r"no dataset 'x'|stored in another file|no 'x'"):
        FileGrid("link.h5", "x")
    with h5py.File(folder / "raw.h5", "w") as file:
        file.create_dataset("x", (4, 3), "f8", external=[(str(other / "raw"), 0, 96)])
    with pytest.raises(GridError, match="'x' is stored in another file; copy it here"):
        FileGrid("raw.h5")


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5", "a.csv"])
def test_the_first_point_that_is_not_finite_is_named(folder, name):
    data = DATA.copy()
    data[2, 1], data[3, 0] = np.nan, np.inf
    np.save(folder / "a.npy", data)
    np.savez(folder / "a.npz", x=data)
    np.savetxt(folder / "a.csv", data, delimiter=",")
    write_h5(folder, x=data)
    with pytest.raises(
        GridError, match=r"row 2 \(counted from 0\) is \[.*nan.*\]; every coordinate"
    ):
        FileGrid(name)[1:]
    assert rows(name, columns=[2]) == data[:, 2:].tolist() if name != "a.csv" else True


CSV_FAULTS = [
    ("1,2\n3\n", r"a\.csv, line 2 has 1 values, the first line has 2; give every line the same"),
    ("a,b\n\n1,2\n3,4,5\n", r"a\.csv, line 4 has 3 values, the first line has 2"),
    ("1,2\n3,x\n", r"a\.csv, line 2: 'x' is not a number; separate numbers by commas"),
    ("1,o\n3,4\n", r"a\.csv, line 1: 'o' is not a number"),
    ("1;2\n3;4\n", r"a\.csv, line 2: '3;4' is not a number"),
    ("a,b\n", r"at least one point, the number of rows of a\.csv is 0"),
    ("", r"at least one point, the number of rows of a\.csv is 0"),
    ("1,\n", r"line 1: '' is not a number"),
]


@pytest.mark.parametrize(("text", "message"), CSV_FAULTS)
def test_faults_of_csv(folder, text, message):
    with pytest.raises(GridError, match=message):
        rows(write_csv(folder, text))


def test_bytes_that_are_no_text(folder):
    (folder / "a.csv").write_bytes(b"\xff\xfe\x00,1\n")
    with pytest.raises(GridError, match=r"a\.csv cannot be read: .*decode"):
        rows("a.csv")


ARRAYS = [
    (DATA.astype(complex), "holds complex128; expected real numbers"),
    (DATA > 0, "holds bool; expected real numbers"),
    (np.array([["a", "b"]]), "holds <U1; expected real numbers"),
    (np.array([{}], dtype=object), "cannot be read: "),
    (np.float64(1.0), r"has shape \(\); expected \(N, n\), or \(N,\) for n = 1"),
    (np.zeros((2, 2, 2)), r"has shape \(2, 2, 2\); expected"),
    (np.zeros((0, 3)), "at least one point"),
    (np.zeros(3, dtype="f8,i4"), "expected real numbers"),
]


@pytest.mark.parametrize(("array", "message"), ARRAYS)
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_arrays_that_are_no_points(folder, name, array, message):
    np.save(folder / "a.npy", array)
    np.savez(folder / "a.npz", x=array)
    with pytest.raises(GridError, match=message):
        FileGrid(name)


@pytest.mark.parametrize(
    "value", [DATA.astype(complex), DATA > 0, "text", np.float64(1.0), np.zeros((2, 2, 2))]
)
def test_datasets_that_are_no_points(folder, value):
    with pytest.raises(GridError, match=r"dataset 'x' (holds|has shape)"):
        FileGrid(write_h5(folder, x=value))


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.h5"])
def test_damaged_files(folder, name):
    (folder / name).write_bytes(b"nonsense")
    with pytest.raises(GridError, match=rf"{name} cannot be read: "):
        FileGrid(name)


REFUSED = [
    ({"path": ""}, r"grid\.path is empty; name a \.npy, \.npz, \.csv or \.h5 file"),
    ({"path": "b.npy"}, r"there is no file b\.npy \(looked for /.*b\.npy\); relative paths start"),
    ({"path": "a.txt"}, r"has the suffix '\.txt'; expected one of \.npy, \.npz, \.csv, \.h5"),
    ({"path": "a.csv", "dataset": "x"}, r"grid\.dataset is 'x' but a \.csv file holds one table"),
    ({"path": "a.npz"}, r"grid\.dataset is not given and there is no 'x'; .* one of u, v"),
    ({"path": "a.h5", "dataset": "w"}, r"there is no dataset 'w'; set .* one of u, v"),
    ({"path": "a.csv", "columns": []}, r"grid\.columns is empty; name at least one column"),
    ({"path": "a.csv", "columns": [3]}, r"there is no column 3; a\.csv has 3, 0 … 2"),
    ({"path": "a.csv", "columns": [-1]}, r"there is no column -1"),
    ({"path": "a.csv", "columns": ["aa"]}, r"a\.csv has 0 columns 'aa'\. Did you mean 'a'\?"),
    ({"path": "a.npz", "dataset": "u", "columns": ["a"]}, r"a\.npz has no names of columns, got"),
    (
        {"path": "a.csv", "columns": [0, 1]},
        r"grid\.columns has 2 entries but the function takes n = 3 inputs; choose 3 columns",
    ),
    ({"path": "a.csv", "n": 2}, r"grid\.n is 2 but the function takes n = 3 inputs"),
    (
        {"path": "b.csv"},
        r"b\.csv has 4 columns but the function takes n = 3 inputs; choose 3 of them in grid\.col",
    ),
]


@pytest.mark.parametrize(("options", "message"), REFUSED)
def test_refused(folder, options, message):
    write_csv(folder, "a,b,c\n1,2,3\n")
    write_csv(folder, "1,2,3,4\n", "b.csv")
    (folder / "a.txt").touch()
    np.savez(folder / "a.npz", u=DATA, v=DATA)
    write_h5(folder, u=DATA, v=DATA)
    with pytest.raises(GridError, match=message):
        build_file(FIXED, **options)
