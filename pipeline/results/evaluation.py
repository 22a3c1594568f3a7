"""Derivatives that were evaluated and kept in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pipeline.autograd.checks.certificate import Certificate
from pipeline.autograd.evaluation_plan import Plan
from pipeline.autograd.operators import Operator
from pipeline.autograd.packing import unpack
from pipeline.autograd.pattern import Pattern
from pipeline.display import card
from pipeline.errors import PipelineError, nearest
from pipeline.functions.structure import Structure, unflatten
from pipeline.store.arrays.sparse_rows import SparseRows
from pipeline.store.arrays.sparse_tensors import SparseTensors
from pipeline.store.arrays.sparse_values import SparseValues
from pipeline.store.layout import STATUS


@dataclass(frozen=True)
class Evaluation:
    """Derivatives in memory. Datasets are attributes: ``evaluation.hessian``.

    Attributes:
        x: The points, (N, n).
        datasets: Dataset name -> (N, …), on the device of the evaluation.
        status: uint8 (N,): 1 ok, 2 not finite, 3 the function raised.
        failures: Index of a point -> what the function said there.
        certificate: Why the numbers can be trusted.
        plan: How they were evaluated.
        operators: What was evaluated. What ``symmetric="packed"`` keeps as ``hessian_packed`` is
            whole under its own name, ``evaluation.hessian``, and so is ``hessian_sparse``.
        structures: input, output or variable -> the tensors whose entries lie along it, where these
            are not flat.
        pattern: Entries that ``format="sparse"`` keeps; None where everything is dense.
    """

    x: Tensor
    datasets: Mapping[str, Tensor]
    status: Tensor
    failures: Mapping[int, str]
    certificate: Certificate
    plan: Plan
    operators: tuple[Operator, ...]
    pattern: Pattern | None = None
    structures: Mapping[str, Structure] = field(default_factory=dict)

    def unflatten(self, name: str) -> Any:
        """Give a dataset in the shapes of the tensors that the function takes and returns.

        Args:
            name: x, value, gradient, jacobian, hessian or derivative_k.

        Returns:
            (N, …) with the dimensions of the tensors in place of flat ones; a mapping of these by
            name where there are several tensors, by (output, input, …) where both have names.

        Raises:
            PipelineError: It has no such shape.
        """
        if name == "x":
            return unflatten(self.x, _axes(["input"], self.structures))
        orders = {item.name: item.order for item in self.operators if isinstance(item.key, int)}
        if name not in orders:
            raise PipelineError(f"{name!r} cannot be unflattened. {nearest(name, orders)}")
        array, order = getattr(self, name), orders[name]
        along = "variable" if "variable" in self.structures else "input"
        outputs = ["output"] * (array.ndim - 1 - order)
        return unflatten(array, _axes([*outputs, *[along] * order], self.structures))

    def __repr__(self) -> str:
        lines = [f"  {name:10}  {fact}" for name, fact in self._facts().items()]
        how = f"by route {self.plan.route} {self.plan.mode}; .certificate, .plan: why, and how"
        return "\n".join([f"Derivatives {how}", *lines])

    def _repr_html_(self) -> str:
        return card("Derivatives", self._facts()) + self.certificate._repr_html_()

    def _facts(self) -> dict[str, Any]:
        counts = {name: int((self.status == code).sum()) for name, code in STATUS.items()}
        return {
            "points": len(self.x),
            "status": ", ".join(f"{count} {name}" for name, count in counts.items() if count),
            **{name: f"{tuple(part.shape)} {part.dtype}" for name, part in self.datasets.items()},
            **{f"point {index} failed": text for index, text in list(self.failures.items())[:5]},
        }

    def sparse(self, name: str) -> SparseValues:
        """Give a sparse result.

        Args:
            name: jacobian, hessian or derivative_k.

        Returns:
            For SciPy, torch, or filled in.

        Raises:
            PipelineError: Nothing of this name was kept sparse.
        """
        pattern, values = self.pattern, self.datasets.get(f"{name}_sparse")
        if pattern is None or values is None:
            raise PipelineError(
                f"no sparse {name!r} was evaluated, but {', '.join(self.datasets)}; ask for format='sparse'"
            )
        array = values.cpu().numpy()
        if len(pattern.shape) > 2:
            return SparseTensors(array, pattern.flat.numpy(), pattern.shape)
        indptr, columns = pattern.indptr.numpy(), pattern.columns.numpy()
        return SparseRows(array, indptr, columns, pattern.shape[1])

    def __getattr__(self, name: str) -> Tensor:
        datasets: Mapping[str, Tensor] = self.__dict__.get("datasets", {})
        if name in datasets:
            return datasets[name]
        for operator in self.__dict__.get("operators", ()):
            if operator.name == name and operator.sparse and self.pattern is not None:
                return self.pattern.to_dense(datasets[operator.dataset])
            if operator.name == name:
                return unpack(datasets[operator.dataset], operator.order)
        raise AttributeError(f"nothing named {name!r} was evaluated. {nearest(name, datasets)}")

    def __dir__(self) -> list[str]:
        names = [operator.name for operator in self.operators]
        return sorted({*super().__dir__(), *self.datasets, *names})


def _axes(kinds: Sequence[str], known: Mapping[str, Structure]) -> dict[int, Structure]:
    return {axis: known[kind] for axis, kind in enumerate(kinds, 1) if kind in known}
