"""Batches to a device and back: the same laws on every device, and what holds on a GPU alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import pipeline
from pipeline.runs.transfer import Direct, build_transfer

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)
DEVICES = ["cpu", CUDA]
POINTS = torch.linspace(-1, 1, 3000, dtype=torch.float64).reshape(1000, 3)


def energy(x):
    return torch.sin(x).prod() + (x**3).sum()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_values_come_back_as_they_went(device, dtype):
    transfer = build_transfer(torch.device(device), dtype)
    waiting = []
    for shift in range(8):
        points = transfer.put(POINTS + shift)
        assert points.dtype == dtype
        assert points.device.type == device
        tensors = {"twice": 2 * points, "turned": points.T[:, ::2], "status": points[:, 0] > 0}
        waiting.append(transfer.take(tensors))
        del points, tensors  # their memory may be taken by the next batch
    with ThreadPoolExecutor(1) as writer:
        batches = [writer.submit(rows).result() for rows in waiting]
    for shift, rows in enumerate(batches):
        expected = (POINTS + shift).to(dtype)
        assert np.array_equal(rows["twice"], (2 * expected).numpy())
        assert np.array_equal(rows["turned"], expected.T[:, ::2].numpy())
        assert np.array_equal(rows["status"], (expected[:, 0] > 0).numpy())
        assert all(values.flags.c_contiguous for values in rows.values())


def test_nothing_is_copied_on_the_cpu():
    transfer = build_transfer(torch.device("cpu"), torch.float64)
    assert isinstance(transfer, Direct)
    points = transfer.put(POINTS)
    assert points.data_ptr() == POINTS.data_ptr()
    assert transfer.take({"x": points})()["x"].ctypes.data == POINTS.data_ptr()


@pytest.mark.gpu
@pytest.mark.parametrize("operators", ["gradient", "hessian"])
def test_a_batch_never_waits_for_the_gpu(operators):
    evaluator = pipeline.prepare(energy, POINTS, operators, device="cuda")
    transfer = build_transfer(torch.device("cuda"), torch.float64)
    evaluator.guarded(transfer.put(POINTS))  # what is done once may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = evaluator.guarded(transfer.put(POINTS))
        rows = transfer.take({**found.datasets, "status": found.status})
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (rows()["status"] == 1).all()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_run_gives_the_numbers_of_the_cpu(dtype, tmp_path):
    options = {"dtype": dtype, "shard_rows": 300, "batch": 100}
    one = pipeline.run(energy, POINTS, "all", output_dir=tmp_path / "a", device="cpu", **options)
    two = pipeline.run(energy, POINTS, "all", output_dir=tmp_path / "b", device="cuda", **options)
    assert np.array_equal(one.x[:], two.x[:])
    assert np.array_equal(one.status[:], two.status[:])
    tolerance = {"float32": 1e-5, "float64": 1e-13}[dtype]
    for name in ("value", "gradient", "hessian"):
        assert np.abs(one[name][:] - two[name][:]).max() < tolerance * np.abs(one[name][:]).max()


@pytest.mark.gpu
def test_memory_that_runs_out_costs_nothing(tmp_path):
    def hungry(x):
        return (x.repeat(10_000).sin() ** 2).sum()

    torch.cuda.set_per_process_memory_fraction(0.02)
    try:
        stored = pipeline.run(
            hungry, POINTS, "gradient", output_dir=tmp_path, device="cuda", batch=1000
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    expected = 10_000 * torch.sin(2 * POINTS).numpy()
    assert np.allclose(stored.gradient[:], expected, rtol=1e-10)
