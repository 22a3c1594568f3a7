"""Files from anybody: hostile ones are refused, damaged ones are refused or right."""

import shutil

import h5py
import numpy as np
import pytest
import torch
from support.sealing import resealed

import pipeline
from pipeline import open_results
from pipeline.errors import StoreError
from pipeline.results import __main__ as results
from pipeline.store.export.integrity import check_files


def f(x):
    return torch.stack([torch.sin(x).prod(), (x**3).sum()])


POINTS = torch.linspace(-1, 1, 90, dtype=torch.float64).reshape(30, 3)


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A result of a run, once and for all tests."""
    place = tmp_path_factory.mktemp("pristine")
    stored = pipeline.run(f, POINTS, ["value", "jacobian"], output_dir=place, shard_rows=10)
    stored.close()
    return stored.path.parent


@pytest.fixture
def result(pristine, tmp_path):
    shutil.copy(pristine / "result.h5", tmp_path / "result.h5")
    return tmp_path / "result.h5"


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.h5"
    with h5py.File(path, "w") as file:
        file["value"] = np.arange(60.0).reshape(30, 2)
        file.create_group("group")["entry"] = 3
    return path


def replace(file, name, **keywords):
    del file[name]
    return file.create_dataset(name, **keywords)


def external_link(file, secret):
    del file["value"]
    file["value"] = h5py.ExternalLink(str(secret), "value")


def external_link_in_a_group(file, secret):
    file["provenance/more"] = h5py.ExternalLink(str(secret), "value")


def group_elsewhere(file, secret):
    del file["certificate"]
    file["certificate"] = h5py.ExternalLink(str(secret), "group")


def soft_link_round_and_round(file, secret):
    del file["value"]
    file["value"] = h5py.SoftLink("/value")


def external_storage(file, secret):
    replace(file, "value", shape=(30, 2), dtype="f8", external=[(str(secret), 0, 480)])


def virtual_source(file, secret):
    virtual = h5py.VirtualLayout((30, 2), "f8")
    virtual[:] = h5py.VirtualSource(str(secret), "value", (30, 2))
    del file["value"]
    file.create_virtual_dataset("value", virtual)


def virtual_source_above(file, secret):
    virtual = h5py.VirtualLayout((30, 2), "f8")
    virtual[:] = h5py.VirtualSource("shards/../secret.h5", "value", (30, 2))
    del file["value"]
    file.create_virtual_dataset("value", virtual)


def virtual_entry(file, secret):
    virtual = h5py.VirtualLayout((3,), "f8")
    virtual[:] = h5py.VirtualSource("shards/shard-00000.h5", "value", (3,))
    file.create_virtual_dataset("provenance/more", virtual)


def absurd_rows(file, secret):
    made = replace(file, "value", shape=(10**15, 2), dtype="f8", chunks=(1000, 2))
    made.attrs["units"] = "1"
    file.attrs["stop"] = 10**15


def absurd_columns(file, secret):
    replace(file, "value", shape=(30, 10**12), dtype="f8", chunks=(1, 1000))


def too_few_rows(file, secret):
    replace(file, "value", data=np.zeros((29, 2)))


def objects(file, secret):
    replace(file, "value", shape=(30,), dtype=h5py.ref_dtype)


def texts(file, secret):
    replace(file, "value", data=["a"] * 30, dtype=h5py.string_dtype())


def status_of_floats(file, secret):
    replace(file, "status", data=np.ones(30))


def filters_of_others(file, secret):
    replace(file, "value", shape=(30, 2), dtype="f8", chunks=(30, 2), compression="lzf")


def no_points(file, secret):
    del file["x"]


def no_run(file, secret):
    del file.attrs["run_id"]


def stop_before_start(file, secret):
    file.attrs["stop"] = -1


def stop_is_text(file, secret):
    file.attrs["stop"] = "thirty"


def another_schema(file, secret):
    file.attrs["schema"] = "pipeline-derivatives/2"


def schema_of_bytes(file, secret):
    file.attrs["schema"] = np.arange(3)


def certificate_is_data(file, secret):
    replace(file, "certificate", data=3.0)


def group_in_a_group(file, secret):
    file["certificate"].create_group("deeper")


def huge_entry(file, secret):
    file.create_dataset("provenance/more", shape=(1 << 40,), dtype="f8", chunks=(1 << 10,))


def compound_entry(file, secret):
    file["provenance/more"] = np.zeros((), dtype=[("a", "f8"), ("b", "i4")])


HOSTILE = {
    external_link: "'value' refers to another place",
    external_link_in_a_group: "'more' refers to another place",
    group_elsewhere: "'certificate' refers to another place",
    soft_link_round_and_round: "'value' refers to another place",
    external_storage: "'value' refers to another file",
    virtual_source: "'value' refers to another file",
    virtual_source_above: "'value' refers to another file",
    virtual_entry: "is no text, number or row of numbers",
    absurd_rows: "rows, start and stop make it 1000000000000000",
    absurd_columns: "claims 240000000000000 bytes, the file holds 0",
    too_few_rows: "'value' has 29 rows, start and stop make it 30",
    objects: "'value' has to be float64 or float32, got object",
    texts: "'value' has to be float64 or float32, got object",
    status_of_floats: "'status' has to be uint8, got float64",
    filters_of_others: "'value' needs filters that this project does not write",
    no_points: "has no dataset 'x'",
    no_run: "lacks the attributes run_id",
    stop_before_start: "holds no points",
    stop_is_text: "is damaged: ValueError",
    another_schema: "expected a file of schema 'pipeline-derivatives/1', got 'pipeline-derivatives/2'",
    schema_of_bytes: "expected a file of schema",
    certificate_is_data: "'/certificate' has to be a group",
    group_in_a_group: "'/certificate/deeper' has to be a dataset",
    huge_entry: "is no text, number or row of numbers",
    compound_entry: "which is not read",
}


@pytest.mark.parametrize("spoil", HOSTILE, ids=lambda spoil: spoil.__name__)
def test_a_hostile_file_is_refused(spoil, result, secret, capsys):
    with resealed(result) as file:
        spoil(file, secret)
    with pytest.raises(StoreError, match=HOSTILE[spoil]):
        open_results(result)
    result.unlink()  # nothing holds it open, or this would fail on some systems
    assert results.main(["show", str(result)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_what_others_add_is_never_looked_into(result, secret):
    with resealed(result) as file:
        theirs = file.create_group("their own")
        theirs["far"] = h5py.ExternalLink(str(secret), "value")
    with open_results(result) as stored:
        assert stored.names == ("jacobian", "status", "value", "x")
        assert check_files(stored) == []


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"points": "many"}', '{"points": null}', "\x00" * 100, '{"points": -3}'],
)
def test_a_plan_that_is_none(pristine, tmp_path, text):
    run = shutil.copytree(pristine, tmp_path / "run")
    (run / "result.h5").unlink()
    (run / "run.json").write_text(text)
    with pytest.raises(StoreError, match=r"the plan of the run cannot be read"):
        open_results(run)


def test_a_truncated_file_is_refused_at_any_length(result):
    whole = result.read_bytes()
    with open_results(result) as stored:
        expected = {name: stored[name][:] for name in stored.names}
    for length in range(0, len(whole), max(len(whole) // 60, 1)):
        result.write_bytes(whole[:length])
        try:
            with open_results(result) as stored:
                seen = {name: stored[name][:] for name in stored.names}
        except StoreError:
            continue
        assert all(np.array_equal(seen[name], expected[name]) for name in expected)
