"""What a plugin contributes: the frozen record of a function."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import FunctionError, PluginError, told
from pipeline.functions.files_read import digest_with_files, read_at_import
from pipeline.functions.fingerprint import source_digest, source_file
from pipeline.functions.parameters import Parameter, parameters_of
from pipeline.functions.structure import Shape, Shapes, Structure

if TYPE_CHECKING:
    from torch import Tensor


Bound = float | Sequence[float]
Nested = float | Sequence["Nested"]


@dataclass(frozen=True)
class AnySize:
    """The input size of a function that takes any n, or any n of some kind.

    Attributes:
        default: n when neither the user nor the grid says one.
        minimum: Smallest n that makes sense.
        multiple: n must be a multiple of this.
    """

    default: int = 2
    minimum: int = 1
    multiple: int = 1

    def fits(self, n: int) -> bool:
        """Tell whether a point with n inputs can be given to the function."""
        return n >= self.minimum and n % self.multiple == 0

    def __str__(self) -> str:
        kind = f"a multiple of {self.multiple}, " if self.multiple > 1 else ""
        return f"n = {kind}at least {self.minimum}"


@dataclass(frozen=True)
class Scenario:
    """A function at one point with the numbers that it must have there: pure data.

    Attributes:
        x: The point, n floats.
        expected: Dataset name (`value`, `gradient`, `jacobian`, `hessian`, `derivative_3`, …)
            -> nested sequence of floats in the shape of that dataset's point.
        parameters: Parameters of the function that differ from its defaults.
        source: Where the numbers come from (paper, table, closed form).
        tolerance: Largest allowed error per dataset: max|A - R| <= tolerance * max(1, max|R|).
    """

    x: Sequence[float]
    expected: Mapping[str, Nested]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    source: str = "closed form"
    tolerance: float = 1e-12


@dataclass(frozen=True)
class Function:
    """A function that derivatives can be asked of: what a plugin contributes.

    Attributes:
        name: What the user types: ``function=<name>``.
        build: ``build(**parameters) -> f`` where f maps one point, a tensor of shape (n,), to
            a tensor of `output_shape`, by torch operations, of the point's dtype and device.
            The signature of `build` is the schema of ``function_params``: every parameter has
            a type and a default.
        n: Input size: an int, ``n(**parameters) -> int``, or `AnySize` for a function of any n.
        output_shape: () or (m,), or ``output_shape(n, **parameters)`` that gives one of these. Where
            f returns a tensor of more dimensions, its shape; where it returns a mapping of tensors,
            their names and shapes.
        domain: Lower and upper end of where the function is meant to be evaluated, each a
            number or one number per input: the default bounds of grids.
        source: Where the function is defined in the literature.
        summary: One line for listings.
        input_names: Name of each input, where they have names.
        output_names: Name of each output, where they have names.
        input_units: Unit of the inputs ("1" if dimensionless).
        output_units: Unit of the value ("1" if dimensionless).
        closed_form: Dataset name -> ``g(x, **parameters)``, the derivative at a point (n,) written
            out by hand, without automatic differentiation: an oracle for any point.
        scenarios: Points with known derivatives.
        sparsity: ``jacobian`` or ``hessian`` -> ``g(n, **parameters)``, a mask (m, n) or (rows,
            columns) of the entries that can be other than zero, where these are not found by
            themselves.
        data: Files that the function reads by other means than Python's own, such as HDF5, or not
            before it is evaluated; relative to the file that defines `build`. What Python opens while
            the plugin is imported and while f is built is found without being named.
        inputs: Shape of the tensor that f takes in place of a row, or names and shapes of several,
            which f takes by keyword; it replaces `n`.
    """

    name: str
    build: Callable[..., Callable[..., Any]]
    n: int | AnySize | Callable[..., int] = AnySize()
    output_shape: Shapes | Callable[..., Shapes] = ()
    domain: tuple[Bound, Bound] = (-1.0, 1.0)
    source: str = ""
    summary: str = ""
    input_names: Sequence[str] = ()
    output_names: Sequence[str] = ()
    input_units: str = "1"
    output_units: str = "1"
    closed_form: Mapping[str, Callable[..., Tensor]] = field(default_factory=dict)
    scenarios: Sequence[Scenario] = ()
    sparsity: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    data: Sequence[str] = ()
    inputs: Shapes | None = None

    @property
    def parameters(self) -> dict[str, Parameter]:
        """The typed parameters, read from the signature of `build`."""
        return parameters_of(self.build, f"function {self.name!r}")

    def check(self) -> None:
        """Read everything that can be wrong in the record itself.

        Raises:
            PluginError: Something is; lists every fault.
        """
        faults = [
            f"{name}= has to be {expected}, got {getattr(self, name)!r}"
            for name, expected, fits in (
                ("name", "letters, digits and _", re.fullmatch(r"[A-Za-z_]\w*", str(self.name))),
                ("build", "the function that builds f from its parameters", callable(self.build)),
                (
                    "n",
                    "a positive number, AnySize(…), or a function of the parameters",
                    self._has_size(),
                ),
                (
                    "output_shape",
                    "(), (m,), (rows, columns), names and shapes such as {'energy': (), 'forces': (3, 3)}, "
                    "or a function of n and the parameters",
                    self._has_shape(),
                ),
                ("domain", "two ends, as in (-1.0, 1.0)", _are_ends(self.domain)),
            )
            if not fits
        ]
        if faults:
            raise PluginError(f"function {self.name!r}: " + "; ".join(faults))
        _ = self.parameters

    def _has_size(self) -> bool:
        if isinstance(self.n, int):
            return self.n >= 1 and not isinstance(self.n, bool)
        return isinstance(self.n, AnySize) or callable(self.n)

    def _has_shape(self) -> bool:
        shape = self.output_shape
        if isinstance(shape, Mapping):
            return bool(shape) and all(_is_shape(part) for part in shape.values())
        return callable(shape) or _is_shape(shape)

    def sizes(self, **parameters: Any) -> int | AnySize:
        """Give the input size that these parameters allow."""
        if self.inputs is not None:
            return Structure.of(self.inputs).size
        if isinstance(self.n, int | AnySize):
            return self.n
        with self.explained("n", parameters):
            return self.n(**parameters)

    def shape(self, n: int, **parameters: Any) -> Shape:
        """Give the output shape, () or (m,), for n inputs and these parameters."""
        structure = self.outputs(n, **parameters)
        return structure.parts[0][1] if structure.is_flat else (structure.size,)

    def outputs(self, n: int, **parameters: Any) -> Structure:
        """Give what f returns, for n inputs and these parameters."""
        with self.explained("output_shape", parameters):
            shape = self.output_shape
            return Structure.of(shape(n, **parameters) if callable(shape) else shape)

    @contextmanager
    def explained(self, what: str, parameters: Mapping[str, Any]) -> Iterator[None]:
        """Say whose code it is that raises: the plugin's.

        Args:
            what: What it was asked for.
            parameters: With which parameters.

        Raises:
            FunctionError: The plugin's code raised.
        """
        try:
            yield
        except (Exception, SystemExit) as error:  # the plugin's own code may raise anything
            raise FunctionError(
                f"function {self.name!r}: its {what} raises with parameters {dict(parameters)}: "
                f"{told(error)}"
            ) from error

    def source_digest(self, read: Iterable[Path] = ()) -> str:
        """Tell one source from another: another source, or other data, is another run.

        Args:
            read: Data files that were read while f was built.

        Returns:
            SHA-256 of the file that defines `build` and of all data files.

        Raises:
            FunctionError: A file of `data` is not there.
        """
        source = source_file(self.build)
        folder = Path.cwd() if source is None else source.parent
        declared = [folder / name for name in self.data]
        for path in declared:
            if not path.is_file():
                raise FunctionError(
                    f"function {self.name!r}: its data= names {path}, and there is no such file"
                )
        at_import = () if source is None else read_at_import(source)
        return digest_with_files(source_digest(self.build), {*read, *declared, *at_import})


def _is_shape(value: object) -> bool:
    sizes = value if isinstance(value, Sequence) and not isinstance(value, str) else (None,)
    return all(isinstance(m, int) and not isinstance(m, bool) and m >= 1 for m in sizes)


def _are_ends(value: object) -> bool:
    ends = value if isinstance(value, Sequence) and len(value) == 2 else (None,)
    return all(
        isinstance(x, Real) for end in ends for x in (end if isinstance(end, Sequence) else [end])
    )
