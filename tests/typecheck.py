"""The type checker that tests run remask under: beartype, in which an int is a float as it is for pyright.

What it refuses is a TypeError, as it would be where such a value is used.
"""

import inspect
from functools import partial
from types import FunctionType
from typing import Any, ForwardRef, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True, violation_type=TypeError))
_with_shapes = jaxtyping.jaxtyped


def plain(hint: Any) -> bool:
    """Whether nothing in a hint is a shape, or a name that is not known yet."""
    if isinstance(hint, str | ForwardRef) or (inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray)):
        return False
    inner = hint if isinstance(hint, list) else get_args(hint)
    return all(map(plain, inner))


def jaxtyped(fn: Any = None, *, typechecker: Any) -> Any:
    """jaxtyping's decorator, but a function without shapes is checked by the type checker alone.

    jaxtyping makes two more functions of each and binds the arguments of each call, to compare the axes of shapes;
    where there are none, all of that is time.
    """
    if fn is None:
        return partial(jaxtyped, typechecker=typechecker)
    generates = inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn)
    if isinstance(fn, FunctionType) and not generates and all(map(plain, fn.__annotations__.values())):
        return typechecker(fn)
    return _with_shapes(fn, typechecker=typechecker)
