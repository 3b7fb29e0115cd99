"""Two modes under which a program says at once that it computes in the wrong place, on a machine with a CPU alone.

`Placed` makes it an error to create a tensor without saying where, or to draw without a generator. `Pretended` is a
device of its own for a while: it computes on the CPU and keeps, for each storage, the device that it would lie on; as a
GPU does, it refuses to mix devices, and as MPS does, a pretended MPS has no 64-bit floats.
"""

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

SOURCE = Path(__file__).resolve().parents[1] / "src" / "remask"
CPU, MPS, CUDA = torch.device("cpu"), torch.device("mps"), torch.device("cuda", 0)
GENERATOR = torch.Generator


class WrongPlaceError(Exception):
    """A tensor was made, or used, where it does not belong."""


def named(*names: str) -> frozenset[Callable[..., Any]]:
    """Functions of torch by their names, of the module and of its tensors."""
    return frozenset(getattr(owner, name) for name in names for owner in (torch, Tensor) if hasattr(owner, name))


FILLED = named("arange", "empty", "eye", "full", "linspace", "logspace", "ones", "scalar_tensor", "tensor", "zeros")
FILLED |= named("empty_strided", "hann_window", "tril_indices", "triu_indices")
DRAWN = named("rand", "randint", "randn", "randperm", "normal")
DRAWS = DRAWN | named("multinomial", "bernoulli", "bernoulli_", "poisson", "rand_like", "randn_like", "randint_like")
DRAWS |= named("uniform_", "normal_", "exponential_", "random_", "geometric_", "cauchy_", "log_normal_")

ON_THE_CPU: Mapping[str, str] = {
    "data/": "text and rows lie on the CPU until the loop moves a batch",
    "tokenizers/": "no tensor of theirs meets a network",
    "bijections/": "rows and their noise lie on the CPU, the same for every device, and are moved batch by batch",
    "cli/": "a command's words become rows on the CPU",
    "evaluation/causal_reader.py": "rows of a judge's own vocabulary, moved as a batch",
    "evaluation/judged.py": "samples as rows of text, moved as a batch",
    "harness/scoring.py": "a request's words as rows of text, moved as a batch",
    "judgement/answers.py": "prompts as rows of text, moved as a batch",
    "networks/concepts/co_occurrence.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "networks/concepts/decoders.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "networks/concepts/encoders.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "networks/concepts/layers.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "networks/concepts/letters.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "networks/concepts/network.py:tie_head": "weights are made on the CPU, the same for every device, and moved",
    "networks/experts.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "networks/inverted.py:_draw_seed": "one number that dropout is seeded with, as torch's own dropout would draw it",
    "networks/latent.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "networks/thought/codecs.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "networks/thought/warping.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "networks/term_weights.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "orders.py:rank": "an order is the same on every device",
    "sentences/heads.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "sentences/overlap_heads.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "sentences/names.py:__init__": "weights are made on the CPU, the same for every device, and moved",
    "parallel.py": "what processes tell each other is small and goes through the CPU",
}
"""Part of src/remask → why tensors are made on the CPU there: a folder, a file, or FILE:FUNCTION."""


class Placed(TorchFunctionMode):
    """Fails where remask's own code makes a tensor without naming a device, or draws from the global generator.

    Args:
        allowed: the parts of remask that may make tensors on the CPU; see `ON_THE_CPU`.
        source: the folder whose code is looked at.
    """

    def __init__(self, allowed: Mapping[str, str] = ON_THE_CPU, *, source: Path = SOURCE) -> None:
        super().__init__()
        self.allowed, self.source = tuple(allowed), f"{source}/"

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Looks at who calls before the call is made."""
        kwargs = kwargs or {}
        if func in FILLED or func in DRAWS:
            frame = sys._getframe(1)
            if frame.f_code.co_filename.startswith(self.source):
                place = f"{frame.f_code.co_filename.removeprefix(self.source)}:{frame.f_code.co_name}"
                self._check(func, kwargs, place=place, line=frame.f_lineno)
        return func(*args, **kwargs)

    def _check(self, func: Any, kwargs: Mapping[str, Any], *, place: str, line: int) -> None:
        if place.startswith(self.allowed):
            return
        missing = [("generator", func in DRAWS), ("device", func in FILLED | DRAWN)]
        for name, needed in missing:
            if needed and kwargs.get(name) is None:
                raise WrongPlaceError(f"{place} (line {line}) calls {func.__name__} without a {name}")


class AnyGenerator(type(GENERATOR)):
    """Modules that are imported meanwhile name the pretended class in their annotations, and mean every generator."""

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, GENERATOR)


class PretendedGenerator(GENERATOR, metaclass=AnyGenerator):
    """A generator that draws on the CPU and says which device it is of."""

    def __new__(cls, device: Any = "cpu") -> "PretendedGenerator":
        """Takes what torch's own takes."""
        made = super().__new__(cls, "cpu")
        made.place = torch.device(device)
        return made

    @property
    def device(self) -> torch.device:
        """As it was asked for."""
        return self.place


GETS = {
    Tensor.device.__get__: lambda place: place,
    Tensor.is_cpu.__get__: lambda place: place.type == "cpu",
    Tensor.is_mps.__get__: lambda place: place.type == "mps",
    Tensor.is_cuda.__get__: lambda place: place.type == "cuda",
}
FACTS = frozenset(
    getattr(Tensor, name).__get__ for name in ("shape", "dtype", "ndim", "requires_grad", "grad_fn", "layout")
)
FACTS |= named("size", "dim", "stride", "is_floating_point", "is_complex", "numel", "__len__", "is_contiguous")
READS = frozenset({Tensor.numpy, Tensor.__array__})
COPIES = frozenset({Tensor.copy_, Tensor.data.__set__, torch._has_compatible_shallow_copy_type})
BACKWARD = frozenset({Tensor.backward, torch.autograd.backward, torch.autograd.grad})
WIDE = (torch.float64, torch.complex128)


class Pretended(TorchFunctionMode):
    """Pretends to be a machine with an MPS or a CUDA device; see the module.

    What it does not see: operations inside functions of torch that are written in Python count as one, and gradients
    made by C++ are taken to lie where the loss or their weight does. A tensor without dimensions on the CPU goes with
    any device.
    """

    def __init__(self, device: torch.device = MPS) -> None:
        super().__init__()
        self.device = device
        self.places: dict[int, tuple[StorageWeakRef, torch.device]] = {}
        self.elsewhere: torch.device | None = None
        self.used = 0

    def place(self, tensor: Tensor) -> torch.device | None:
        """Where a tensor would lie; None where that is not known."""
        storage = _storage(tensor)
        known = self.places.get(storage._cdata)
        return self.elsewhere if known is None or known[0].expired() else known[1]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Checks where the arguments lie, computes, and notes where the results do."""
        if func in FACTS:
            return func(*args, **(kwargs or {}))
        kwargs = dict(kwargs or {})
        if func in GETS:
            return GETS[func](self.place(args[0]) or CPU)
        if func in (Tensor.to, Tensor.cpu):
            return self._move(func, args, kwargs)
        place = self._common(func, args, kwargs)
        if isinstance(func, torch._ops.OpOverload):  # of C++, in a backward pass whose operations are counted
            place = place or self.elsewhere
        elif kwargs.get("device") is not None:
            place, kwargs["device"] = self._asked(kwargs["device"]), CPU
        if func in READS and place == self.device:
            raise WrongPlaceError(f"{_name(func)} of a tensor on {place}")
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != (place or CPU).type:
            raise WrongPlaceError(f"{_name(func)} on {place} with a generator on {generator.device}")
        before = self.elsewhere
        if func in BACKWARD:
            self.elsewhere = place
        result = func(*args, **kwargs)
        self.elsewhere = before
        new = place or (CPU if func in FILLED | DRAWN or func is torch.from_numpy else None)
        return self._noted(result, new, func)

    def _asked(self, device: Any) -> torch.device:
        """A device by its name; the first of its kind where no number is given."""
        asked = torch.device(device)
        return self.device if asked.type == self.device.type else asked

    def _common(self, func: Any, args: Any, kwargs: dict[str, Any]) -> torch.device | None:
        """The device of a call's arguments."""
        given = _tensors((args, kwargs))
        if func in COPIES:
            return self.place(given[0])
        if func in (Tensor.__getitem__, Tensor.__setitem__) and self.place(args[0]) == self.device:
            given = [args[0], *_tensors(args[2:])]  # an index may lie on the CPU
        found = {place: tensor for tensor in given if (place := self.place(tensor)) and (tensor.ndim or place != CPU)}
        if len(found) > 1:
            sizes = ", ".join(f"{tuple(tensor.shape)} on {place}" for place, tensor in found.items())
            raise WrongPlaceError(f"{_name(func)} mixes tensors: {sizes}")
        if found:
            return next(iter(found))
        return next((place for tensor in given if (place := self.place(tensor))), None)

    def _move(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Tensor:
        """A copy on another device, where one is asked for."""
        tensor, *rest = args
        here = self.place(tensor) or CPU
        if func is Tensor.cpu:
            there, result = CPU, tensor
        elif any(isinstance(value, Tensor) for value in (*rest, *kwargs.values())):
            (other,) = _tensors((rest, kwargs))
            there, result = self.place(other) or CPU, tensor.to(other.dtype)
        else:
            copy = kwargs.pop("copy", False)
            asked, dtype, _, _ = torch._C._nn._parse_to(*rest, **kwargs)
            there, result = self._asked(asked) if asked else here, tensor.to(dtype or tensor.dtype, copy=copy)
        if there != here and _storage(result)._cdata == _storage(tensor)._cdata:
            result = result.clone()
        return self._noted(result, there, func)

    def _noted(self, result: Any, place: torch.device | None, func: Any) -> Any:
        """The result, with the device of what is new in it."""
        for tensor in _tensors(result):
            storage = _storage(tensor)
            known = self.places.get(storage._cdata)
            if place is not None and (known is None or known[0].expired()):
                self.places[storage._cdata] = (StorageWeakRef(storage), place)
            if self.place(tensor) == self.device:
                self.used += 1
                if self.device == MPS and tensor.dtype in WIDE:
                    raise WrongPlaceError(f"{_name(func)} makes {tensor.dtype}, which MPS does not have")
        if len(self.places) > 20_000:
            self.places = {key: known for key, known in self.places.items() if not known[0].expired()}
        return result


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    """Where the numbers of a tensor lie, also of one that torch.func is differentiating."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor.untyped_storage()


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, tuple | list):
        return []
    return [tensor for item in value for tensor in _tensors(item)]


def _name(func: Any) -> str:
    return str(getattr(func, "__qualname__", func))


def unplaced(source: Path = SOURCE) -> Iterator[str]:
    """FILE:FUNCTION (line N) of each tensor that the source makes without naming a device, run or not."""
    for path in sorted(source.rglob("*.py")):
        file = path.relative_to(source).as_posix()
        for function, call in _calls(ast.parse(path.read_text(encoding="utf-8")), "<module>"):
            torchs = isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "torch"
            made = torchs and getattr(torch, call.func.attr, None) in FILLED | DRAWN
            if made and "device" not in [keyword.arg for keyword in call.keywords]:
                yield f"{file}:{function} (line {call.lineno})"


def _calls(tree: ast.AST, function: str) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield function, node
        yield from _calls(node, node.name if isinstance(node, ast.FunctionDef) else function)


@contextmanager
def watching(*modes: TorchFunctionMode) -> Iterator[None]:
    """Enters modes, for backward passes too: torch leaves a mode while it calls one of its functions."""
    engine = torch.autograd.graph._engine_run_backward

    def run(*args: Any, **kwargs: Any) -> Any:
        with ExitStack() as again:
            for mode in modes:
                again.enter_context(mode)
            return engine(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch, ExitStack() as entered:
        patch.setattr(torch.autograd, "_engine_run_backward", run)
        for mode in modes:
            entered.enter_context(mode)
        yield


@contextmanager
def pretended(device: torch.device, *others: TorchFunctionMode) -> Iterator[Pretended]:
    """A machine with a CPU and another device, for everything that asks torch; `others` are entered as well.

    On a pretended CUDA device nothing can be trained: torch asks a real one for its memory and its draws.
    """
    mode = Pretended(device)
    with pytest.MonkeyPatch.context() as patch, watching(mode, *others):
        backend = {"mps": torch.backends.mps, "cuda": torch.cuda}[device.type]
        patch.setattr(backend, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: int(device.type == "cuda"))
        patch.setattr(torch.cuda, "get_device_name", lambda place: "pretended")
        patch.setattr(torch.backends.mps, "is_built", lambda: True)
        patch.setattr(torch, "Generator", PretendedGenerator)
        patch.setattr(torch.mps, "manual_seed", lambda seed: None)
        patch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")
        yield mode
