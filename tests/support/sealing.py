"""Seals files that a test has changed on purpose, as an attacker could."""

import os
from contextlib import contextmanager

import h5py

from pipeline.store.files.seal import row_ranges, seal
from pipeline.store.files.trust import is_rows


def reseal(path):
    """Give a file a seal that fits what it now holds; HDF5 has removed the old one when it wrote."""
    with h5py.File(path, "r") as file:
        rows = [
            file[name] for name in file if file.get(name, getlink=True).__class__ is h5py.HardLink
        ]
        ranges = row_ranges(
            item
            for item in rows
            if isinstance(item, h5py.Dataset) and is_rows(item) and not item.is_virtual
        )
    descriptor = os.open(path, os.O_RDWR)
    seal(descriptor, ranges)
    os.close(descriptor)


@contextmanager
def resealed(path):
    """Open a file to change it; it is sealed again afterwards."""
    with h5py.File(path, "r+") as file:
        yield file
    reseal(path)
