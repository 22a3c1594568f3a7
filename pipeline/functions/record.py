"""What plugins contribute: frozen records for functions and grids."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import ConfigurationError, FunctionError, PluginError
from pipeline.functions.files_read import digest_with_files, files_read, read_at_import
from pipeline.functions.fingerprint import source_digest, source_file
from pipeline.functions.parameters import Parameter, parameters_of
from pipeline.functions.structure import Shape, Shapes, Structure

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.functions.outputs import Chosen
    from pipeline.grids.base import Grid

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
                ("domain", "two ends, as in (-1.0, 1.0)", _length(self.domain) == 2),
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
        except Exception as error:  # the plugin's own code may raise anything
            raise FunctionError(
                f"function {self.name!r}: its {what} raises with parameters {dict(parameters)}: "
                f"{type(error).__name__}: {error}"
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


def _length(value: object) -> int:
    return len(value) if isinstance(value, Sequence) and not isinstance(value, str) else -1


@dataclass(frozen=True)
class BoundFunction:
    """A function with its parameters: what a run differentiates.

    Attributes:
        function: The record of the plugin.
        parameters: All of its parameters.
        n: Number of inputs.
        output_shape: () or (m,).
        source_digest: SHA-256 of what defines it.
        loadable: A plugin contributes it under its name, so that a result can be checked later.
        chosen: Which outputs are kept, `pipeline.functions.outputs`; None for all.
    """

    function: Function
    parameters: Mapping[str, Any]
    n: int
    output_shape: Shape
    source_digest: str
    loadable: bool = True
    chosen: Chosen | None = None

    @property
    def inputs(self) -> Structure | None:
        """How a point is taken apart; None where f takes the point itself."""
        shapes = self.function.inputs
        return None if shapes is None else Structure.of(shapes)

    @property
    def outputs(self) -> Structure | None:
        """How a value is taken apart; None where f returns () or (m,)."""
        return (
            self._all_outputs if self.chosen is None else self.chosen.structure(self._all_outputs)
        )

    @property
    def _all_outputs(self) -> Structure | None:
        structure = self.function.outputs(self.n, **self.parameters)
        return None if structure.is_flat else structure

    @property
    def structure(self) -> dict[str, Any]:
        """Both, as plain values; nothing of what is flat."""
        both = {"inputs": self.inputs, "outputs": self.outputs}
        return {kind: structure.record() for kind, structure in both.items() if structure}

    @property
    def input_names(self) -> tuple[str, ...]:
        """Name of each input: those of the record, or of the entries of its tensors."""
        if self.inputs is None or self.function.input_names:
            return tuple(self.function.input_names)
        return self.inputs.labels("x")

    @property
    def output_names(self) -> tuple[str, ...]:
        """Name of each output, likewise."""
        names, structure = tuple(self.function.output_names), self._all_outputs
        if structure is not None and not names:
            names = structure.labels("y")
        return names if self.chosen is None else self.chosen.labels(names)

    @cached_property
    def f(self) -> Callable[[Tensor], Tensor]:
        """The callable itself, built once.

        Raises:
            FunctionError: The builder refuses the parameters.
        """
        with self.function.explained("build", self.parameters):
            return self.function.build(**self.parameters)


def bind_function(
    function: Function, parameters: Mapping[str, Any], n: int, loadable: bool = True
) -> BoundFunction:
    """Fix the parameters and the size of a function, and build it.

    Args:
        function: The record of the plugin.
        parameters: All of its parameters, checked.
        n: Number of inputs.
        loadable: A plugin contributes it under its name.

    Returns:
        What a run differentiates.

    Raises:
        ConfigurationError: The function does not take n inputs.
    """
    with files_read() as read:
        _require_size(function, function.sizes(**parameters), n)
        shape = function.shape(n, **parameters)
        with function.explained("build", parameters):
            f = function.build(**parameters)
    bound = BoundFunction(function, parameters, n, shape, function.source_digest(read), loadable)
    bound.__dict__["f"] = f  # what has been built already
    return bound


def _require_size(function: Function, sizes: int | AnySize, n: int) -> None:
    if isinstance(sizes, AnySize) and not sizes.fits(n):
        raise ConfigurationError(
            [f"function {function.name!r} needs {sizes}; the points have n = {n}"]
        )
    if isinstance(sizes, int) and sizes != n:
        raise ConfigurationError(
            [f"function {function.name!r} takes n = {sizes} inputs; the points have n = {n}"]
        )


@dataclass(frozen=True)
class Space:
    """What a grid has to cover: the inputs of one function.

    Attributes:
        n: Number of inputs, or `AnySize` while the grid may still choose it.
        lower: Lower end of the function's domain.
        upper: Upper end of the function's domain.
        seed: Seed of everything random in the run.
    """

    n: int | AnySize
    lower: Bound = -1.0
    upper: Bound = 1.0
    seed: int = 0


@dataclass(frozen=True)
class GridKind:
    """A kind of grid that can be asked for: what a plugin contributes.

    Attributes:
        name: What the user types: ``grid=<name>`` or ``grid.name=<name>``.
        build: ``build(space, /, **options) -> Grid``; its signature is the schema of ``grid.*``.
        summary: One line for listings.
    """

    name: str
    build: Callable[..., Grid]
    summary: str = ""

    @property
    def options(self) -> dict[str, Parameter]:
        """The typed options, read from the signature of `build`."""
        return parameters_of(self.build, f"grid {self.name!r}")

    def check(self) -> None:
        """Read everything that can be wrong in the record itself: the types of its options."""
        _ = self.options
