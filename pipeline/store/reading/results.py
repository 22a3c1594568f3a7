"""Results on disk: datasets that are read by slices, batches, and views for torch and xarray."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StoreError, nearest
from pipeline.store.arrays.filled_array import FilledArray
from pipeline.store.arrays.row_array import RowArray
from pipeline.store.arrays.sparse_values import SparseValues
from pipeline.store.arrays.stored_array import StoredArray
from pipeline.store.arrays.unpacked_array import UnpackedArray
from pipeline.store.files.open_files import OpenFiles
from pipeline.store.files.trust import open_checked, readable
from pipeline.store.layout import SPARSE, STATUS, read_group
from pipeline.store.parts.evidence import gather_from
from pipeline.store.parts.parts import Parts
from pipeline.store.reading.header import Header
from pipeline.store.reading.naming import names_along
from pipeline.store.reading.shapes import unflattened
from pipeline.store.reading.summary import summary, summary_card

if TYPE_CHECKING:
    import xarray

    from pipeline.store.reading.batches import Batch, Buffers
    from pipeline.store.reading.torch_dataset import BatchStream, PointDataset


class Results:
    """Derivatives on disk. Datasets are attributes: ``results.hessian[10:20]``.

    Any number of threads may read; forked processes and those that it is sent to open their own
    files. Made by `open_results`.

    Args:
        path: Where they are.
        points: N.
        parts: The files that are there, in order.
        header: What they say of themselves.
        account: The file that speaks for all of them.
        files: Which of them are open.

    Attributes:
        path: Where they are.
        points: N.
        attrs: title, run_id, created, history and what else the files say.
        names: The datasets with a row per point; those that are stored without their repetitions,
            as ``hessian_packed``, are whole under their plain name, ``hessian``. Where only entries
            of a pattern are stored, the name is that of these, ``hessian_sparse``; zeros are filled
            in under ``hessian``.
        stored: The datasets with a row per point, as the files hold them.
        labels: Dimension -> names along it, where they are known.
    """

    def __init__(
        self,
        path: Path,
        points: int,
        parts: Parts,
        header: Header,
        account: Path,
        files: OpenFiles,
    ) -> None:
        self.path, self.points = path, points
        self.attrs, self.labels = dict(header.attrs), dict(header.labels)
        self.stored = tuple(header.datasets)
        wholes = header.wholes
        self.names = tuple(wholes[name].name if name in wholes else name for name in self.stored)
        self._parts, self._account, self._files = parts, account, files
        stored = {
            name: StoredArray(dataset, points, parts) for name, dataset in header.datasets.items()
        }
        unpacked = {
            dataset.name: UnpackedArray(dataset, stored[name]) for name, dataset in wholes.items()
        }
        self._filled = {
            each.dataset.name: FilledArray(each, stored[name])
            for name, each in header.sparse.items()
        }
        self._arrays: dict[str, RowArray] = {**stored, **unpacked, **self._filled}

    def __getitem__(self, name: str) -> RowArray:
        """Find a dataset.

        Args:
            name: Its name.

        Returns:
            The dataset; nothing has been read of it.

        Raises:
            StoreError: There is none of this name.
        """
        if name not in self._arrays:
            raise StoreError(f"{self.path} has no dataset {name!r}. {nearest(name, self._arrays)}")
        return self._arrays[name]

    def sparse(self, name: str) -> SparseValues:
        """Give the derivatives of a dataset of which the entries of a pattern are stored.

        Args:
            name: jacobian, hessian or derivative_k.

        Returns:
            ``[10]`` for SciPy, ``.to_torch(10)``, ``.to_dense(10)``, each also with a slice.

        Raises:
            StoreError: It is not stored like that.
        """
        plain = name.removesuffix(SPARSE)
        if plain not in self._filled:
            raise StoreError(f"{self.path}: {name!r} is not sparse; read results[{name!r}]")
        return self._filled[plain].sparse()

    def __getattr__(self, name: str) -> RowArray:
        if name.startswith("_") or name in ("names", "stored"):
            raise AttributeError(name)
        try:
            return self[name]
        except StoreError as error:
            raise AttributeError(str(error)) from None

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._arrays})

    def __len__(self) -> int:
        return self.points

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold the rows, in order."""
        return tuple(map(self._parts.path, range(len(self._parts))))

    @property
    def account(self) -> Path:
        """The file that speaks for all: with the attributes, the certificate, the provenance."""
        return self._account

    def names_along(self, dimension: str) -> list[str]:
        """Names along a dimension: of the inputs or outputs where they have names, else numbers.

        Args:
            dimension: E.g. input_2, which has the names of input.

        Returns:
            One per index.
        """
        return names_along(dimension, self.labels, self._arrays)

    @property
    def finished(self) -> bool:
        """Whether one file speaks for all; else every shard that is there speaks for itself."""
        return self._account == self.path

    @cached_property
    def certificate(self) -> dict[str, Any]:
        """The evidence for the numbers; of an unfinished run, from every shard that is there."""
        return self._told["certificate"]

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from; of an unfinished run, from every shard that is there."""
        return self._told["provenance"]

    @cached_property
    def failures(self) -> dict[int, str]:
        """What the function said at the points where it raised: index of the point -> text."""
        return {int(at): text for at, text in json.loads(self.provenance["failures_json"]).items()}

    def unflatten(self, name: str, rows: Any = slice(None)) -> Any:
        """Read a dataset in the shapes of the function's tensors: `pipeline.store.reading.shapes`."""
        return unflattened(self, name, rows)

    @cached_property
    def grid(self) -> dict[str, Any]:
        """What is known of the grid: its `spec`, and nothing of its points."""
        return dict(json.loads(self._grid.get("spec_json", "{}")))

    @cached_property
    def axes(self) -> tuple[NDArray[np.float64], ...]:
        """The axes of a product grid, first one slowest; empty for other grids and very long axes."""
        count = sum(name.startswith("axis_") for name in self._grid)
        return tuple(self._grid[f"axis_{column}"] for column in range(1, count + 1))

    @cached_property
    def common_direction(self) -> NDArray[np.float64] | None:
        """The direction that jvp, vjp and hvp were taken along at every point, if there is one."""
        return self._grid.get("direction")

    @property
    def edited(self) -> bool:
        """Whether the files may have been changed since they were written."""
        return self._files.edited

    @cached_property
    def _grid(self) -> dict[str, Any]:
        return self._groups("grid")["grid"]

    @cached_property
    def _told(self) -> dict[str, dict[str, Any]]:
        if self.finished:
            return self._groups("certificate", "provenance")
        return gather_from(self._parts.contents(), self["status"].dataset, self.edited)

    def _groups(self, *names: str) -> dict[str, dict[str, Any]]:  # to open the file costs the most
        with open_checked(self._account, self.edited) as file, readable(self._account):
            return {name: read_group(file, name) for name in names}

    def missing(self) -> list[tuple[int, int]]:
        """Ranges of points that have not been computed.

        Returns:
            start, stop of each range.
        """
        return self._parts.gaps(self.points)

    def present(self) -> list[tuple[int, int]]:
        """Ranges of points that have been computed: one for each file.

        Returns:
            start, stop of each range.
        """
        return self._parts.spans()

    def counts(self) -> dict[str, int]:
        """Number of computed points of each status.

        Returns:
            Name -> number: as a finished result says, unless somebody may have changed it since; else
            every shard is read.
        """
        known = {} if self.edited else json.loads(self.provenance.get("counts_json", "{}"))
        names = [name for name in STATUS if name != "missing"]
        if not known.keys() >= set(names):
            known = self._counted()
        return {name: known[name] for name in names}

    def count(self, status: str) -> int:
        """Number of computed points of a status: ok, nonfinite, failed or nonsmooth.

        Args:
            status: Which.

        Returns:
            The number.
        """
        return self._counted()[status]

    def _counted(self) -> dict[str, int]:
        read, total = self["status"].read, np.zeros(256, np.int64)
        for span in self.present():
            total += np.bincount(read(*span), minlength=256)
        return {name: int(total[code]) for name, code in STATUS.items()}

    def buffers(
        self, rows: int, names: Sequence[str] = (), pin_memory: bool = False
    ) -> dict[str, Any]:
        """Make torch tensors that batches can be read into.

        Args:
            rows: Points per batch.
            names: Datasets; all of them by default.
            pin_memory: Whether a GPU is to copy from them while the program goes on.

        Returns:
            Dataset -> tensor (rows, …).
        """
        from pipeline.store.reading.batches import new_buffers

        return new_buffers(self, rows, names, pin_memory)

    def batches(
        self,
        rows: int,
        names: Sequence[str] = (),
        kind: Literal["torch", "numpy"] = "torch",
        *,
        out: Buffers | None = None,
        prefetch: int = 2,
        skip_missing: bool = False,
    ) -> Iterator[Batch]:
        """Read everything in order, a batch at a time, while the caller works on the one before.

        Args:
            rows: Points per batch; the last one may be shorter.
            names: Datasets, and ``point`` for the index of each point; by default all datasets.
            kind: What new batches are made of.
            out: Buffers to use again, a mapping from dataset to (rows, …) or several of them: see
                `buffers`. A batch is a view of them, and holds until the next one is asked for;
                with k of them, k - 1 are read ahead.
            prefetch: Batches that a thread reads ahead; 0 for no thread. `out` overrides it.
            skip_missing: Whether to leave points out that have not been computed.

        Returns:
            Iterator of mappings from dataset to (B, …); closing it ends the thread.
        """
        from pipeline.store.reading import batches

        batches.require_rows(rows)
        chosen = batches.require_names(self, names)
        spans = batches.joined(batches.spans_to_read(self, skip_missing))
        parts = batches.cut(spans, rows)
        if out is None:
            return batches.new_batches(self, chosen, parts, kind, prefetch)
        return batches.reused_batches(self, chosen, parts, rows, out)

    def dataset(
        self, names: Sequence[str] = (), *, only_ok: bool = False, skip_missing: bool = False
    ) -> PointDataset:
        """See the points as a map-style ``torch.utils.data.Dataset``, for a DataLoader that shuffles.

        Args:
            names: Datasets, and ``point`` for the index; by default all datasets.
            only_ok: Whether to leave points out whose status is not ok.
            skip_missing: Whether to leave points out that have not been computed.

        Returns:
            The dataset; a sample maps names to tensors.
        """
        from pipeline.store.reading.torch_dataset import Choice, point_dataset

        return point_dataset(self, names, Choice(only_ok, skip_missing))

    def stream(
        self,
        rows: int,
        names: Sequence[str] = (),
        *,
        only_ok: bool = False,
        skip_missing: bool = False,
        share: tuple[int, int] = (0, 1),
    ) -> BatchStream:
        """See the batches as a ``torch.utils.data.IterableDataset``: the fastest way through all of them.

        Args:
            rows: Points per batch; a batch lies in one file.
            names: Datasets, and ``point`` for the index; by default all datasets.
            only_ok: Whether to leave points out whose status is not ok.
            skip_missing: Whether to leave points out that have not been computed.
            share: (rank, ranks) of distributed training. Workers of a DataLoader share among
                themselves.

        Returns:
            The dataset, for ``DataLoader(…, batch_size=None)``.
        """
        from pipeline.store.reading.torch_dataset import Choice, batch_stream

        return batch_stream(self, rows, names, Choice(only_ok, skip_missing), share)

    def to_xarray(
        self,
        grid: bool | None = None,
        chunks: Mapping[str, int] | Literal["auto"] | None = None,
        *,
        fill_missing: bool = False,
    ) -> xarray.Dataset:
        """Open as an xarray dataset with named dimensions and coordinates, lazily.

        Args:
            grid: Whether the points lie along the axes of a product grid, one dimension for each
                input, instead of along `point`. None: where the axes are known.
            chunks: For dask, as in ``Dataset.chunk``; None: without dask.
            fill_missing: Whether points that have not been computed are NaN, with status 0.

        Returns:
            The dataset.
        """
        from pipeline.store.reading.labelled import open_labelled

        return open_labelled(self, grid, chunks, fill_missing)

    def close(self) -> None:
        """Close all files; what is read afterwards opens them again."""
        self._files.close()

    def __enter__(self) -> Results:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return summary(self, self._arrays.values())

    def _repr_html_(self) -> str:
        return summary_card(self, self._arrays.values())
