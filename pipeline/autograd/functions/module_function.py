"""A module as a function of one point: a frozen copy of it, in any precision.

The module itself is never changed, and what happens to it later has no influence: routes that
compile have its parameters as constants.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import Module

from pipeline.errors import FunctionError, told

Call = Callable[[Any, Tensor], Any]


class ModuleFunction:
    """A module as a function of one point (d,).

    Args:
        module: The module; it is copied.
        call: How it is called, ``call(module, point)``; by default ``module(point)``. Labels in the
            point, a loss, or a dimension for the batch go here.

    Raises:
        FunctionError: It acts differently at every call, or cannot be copied.

    Examples:
        >>> f = ModuleFunction(torch.nn.Linear(2, 1, bias=False))
        >>> f(torch.ones(2, dtype=torch.float64)).dtype  # its weights are converted
        torch.float64
    """

    def __init__(self, module: Module, call: Call | None = None) -> None:
        require_repeatable(module)
        self.call_by = call
        self._copies: dict[tuple[torch.dtype | None, torch.device | None], _Called] = {}
        try:
            self._original = _Called(copy.deepcopy(module), call).requires_grad_(False)
        except Exception as error:  # modules refuse to be copied in their own ways
            raise FunctionError(
                f"a {type(module).__name__} cannot be copied ({told(error)}); give a "
                "function that calls it instead"
            ) from error
        self.__name__ = type(module).__name__

    @property
    def module(self) -> Module:
        """The copy, in its own precision."""
        return self._original.module

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Its parameters by name, each once, in its own precision."""
        return dict(self.module.named_parameters())

    def __call__(self, point: Tensor) -> Any:
        """Evaluate at one point, in the precision of the point.

        Args:
            point: (d,).

        Returns:
            What the module returns.
        """
        return self._in(point.dtype, point.device)(point)

    def at(self, point: Tensor) -> Module:
        """The module itself, in the precision of a point."""
        return self._in(point.dtype, point.device).module

    def call(self, point: Tensor, parameters: Mapping[str, Tensor]) -> Any:
        """Evaluate with other parameters.

        Args:
            point: (d,).
            parameters: Those that are replaced.

        Returns:
            What the module returns.
        """
        module = self._in(point.dtype, point.device)
        inside = {f"module.{name}": value for name, value in parameters.items()}
        return torch.func.functional_call(module, inside, (point,))

    def tensors(self, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """Give its parameters in some precision.

        Args:
            dtype: The precision.
            device: Where.

        Returns:
            By name.
        """
        return dict(self._in(dtype, device).module.named_parameters())

    def __fingerprint__(self) -> tuple[Any, ...]:
        """What determines its values: see `pipeline.functions.fingerprint`."""
        return self.module, self.call_by

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_copies": {}}

    def _in(self, dtype: torch.dtype, device: torch.device) -> _Called:
        key = (dtype, device)
        if key not in self._copies:
            self._copies[key] = _converted(copy.deepcopy(self._original), dtype, device)
        return self._copies[key]


class _Called(Module):
    """A module that is called in the user's own way."""

    def __init__(self, module: Module, call: Call | None) -> None:
        super().__init__()
        self.module, self.call_by = module, call
        self.training = module.training

    def forward(self, point: Tensor) -> Any:
        """Call it."""
        return self.module(point) if self.call_by is None else self.call_by(self.module, point)


def _converted(module: _Called, dtype: torch.dtype, device: torch.device) -> _Called:
    """Bring parameters, buffers and plain tensors of a module to a precision."""
    module.to(device)
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = _cast(tensor.data, dtype, device)
    for part in module.modules():
        for name, value in list(vars(part).items()):
            if isinstance(value, Tensor):
                setattr(part, name, _cast(value.detach(), dtype, device))
    return module


def _cast(tensor: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    if tensor.is_complex():
        return tensor.to(device, dtype.to_complex())
    return tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)


def module_function(
    module: Module,
    call: Call | None = None,
    *,
    weights: str | Path | Mapping[str, Tensor] | None = None,
    mode: Literal["eval", "train"] | None = None,
) -> ModuleFunction:
    """Take a module as a function of one point, with weights from a file.

    Args:
        module: The module; it is copied, never changed.
        call: How it is called, ``call(module, point)``; by default ``module(point)``.
        weights: A state dict, or the file of one: ``.safetensors``, or ``.pt`` and ``.pth``, of which
            nothing but tensors is loaded.
        mode: eval or train; None leaves the module as it is.

    Returns:
        The function; ``wrt="parameters"`` differentiates it by its parameters.

    Raises:
        FunctionError: The weights cannot be read or are not those of the module, or the module acts
            differently at every call.

    Examples:
        >>> f = module_function(torch.nn.Linear(2, 1), weights={"weight": torch.ones(1, 2), "bias": torch.zeros(1)})
        >>> f(torch.tensor([1.0, 2.0]))
        tensor([3.])
    """
    if weights is None and mode is None:
        return ModuleFunction(module, call)
    module = copy.deepcopy(module)
    if mode is not None:
        module.train(mode == "train")
    if weights is not None:
        state = weights if isinstance(weights, Mapping) else _load(Path(weights))
        try:
            module.load_state_dict(state)
        except RuntimeError as error:
            raise FunctionError(
                f"the weights are not those of this {type(module).__name__}: {error}"
            ) from error
    return ModuleFunction(module, call)


def _load(path: Path) -> Mapping[str, Tensor]:
    """Read a state dict; opened by Python, so that the file becomes part of a run's identity."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FunctionError(f"weights: {path} cannot be read: {error}") from error
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load

            return dict(load(content))
        if path.suffix in (".pt", ".pth"):
            loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            return dict(loaded)
    except ImportError as error:
        raise FunctionError(
            "weights: safetensors is needed and not installed; pip install 'pipeline-derivatives[weights]'"
        ) from error
    except Exception as error:  # damaged files are refused in many ways
        raise FunctionError(
            f"weights: {path} is no state dict of tensors: {told(error)}"[:500]
        ) from error
    raise FunctionError(f"weights: expected a file .safetensors, .pt or .pth, got {path.name}")


def as_function(f: Callable[[Tensor], Any]) -> Callable[[Tensor], Any]:
    """Take a module as a function; scripted modules and all other callables stay as they are."""
    scripted = isinstance(f, torch.jit.ScriptModule)
    return ModuleFunction(f) if isinstance(f, Module) and not scripted else f


def require_repeatable(module: Module) -> None:
    """Refuse a module that acts differently at every call.

    Args:
        module: Any module.

    Raises:
        FunctionError: It has dropout or batch statistics that are switched on.
    """
    for name, part in module.named_modules():
        reason = _reason(part) if part.training else ""
        if reason:
            raise FunctionError(
                f"{name or 'the module'} ({type(part).__name__}) is in training mode, where it "
                f"{reason}; call module.eval() first"
            )


def _reason(part: Module) -> str:
    batch = torch.nn.modules.batchnorm._NormBase
    if isinstance(part, batch) and part.track_running_stats:
        return "mixes the points of a batch and changes its statistics"
    dropout = getattr(
        part, "p" if isinstance(part, torch.nn.modules.dropout._DropoutNd) else "dropout", 0
    )
    if isinstance(dropout, float) and dropout > 0:
        return "is random"
    return ""
