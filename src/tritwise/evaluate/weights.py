"""Two models tensor by tensor: which codes differ, and how scales and floats are related.

Values that are not equal are often the same number in fewer bits, on one side or the other. Such a relation is exact,
so it is named: "B is A in float16" says that rounding every value of A to float16 gives B, bit for bit.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tritwise.formats import GGUFModel, ModelDirectory, TernaryTensor
from tritwise.formats.reader import linear_names

Opened = ModelDirectory | GGUFModel
Role = Literal["block linear", "norm", "router", "embedding", "head"]
Rounding = Callable[[NDArray[np.float32]], NDArray[np.float32]]

EQUAL, DIFFERENT = "equal", "different"
_HEAD, _EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
# Values that are compared at once.
_BLOCK = 1 << 20


def _to(dtype: type) -> Rounding:
    return lambda values: values.astype(dtype).astype(np.float32)


def _through_inverse(rounding: Rounding) -> Rounding:
    # Where a file divides by its scale (linear_class bitlinear), the inverse is what was rounded.
    return lambda values: np.float32(1) / rounding(np.float32(1) / values)


_TYPES = {"float16": _to(np.float16), "bfloat16": _to(ml_dtypes.bfloat16)}
_FLOAT_ROUNDINGS = {f"{{}} in {name}": rounding for name, rounding in _TYPES.items()}
_SCALE_ROUNDINGS = _FLOAT_ROUNDINGS | {f"1 / (1 / {{}}) in {name}": _through_inverse(rounding) for name, rounding in (
    {"float32": _to(np.float32)} | _TYPES).items()}


@dataclass(frozen=True)
class TensorComparison:
    """One tensor of A and of B.

    `codes_differ` counts ternary codes, None for floats. `relation` is that of the scales of a quantised tensor, else
    of the values: "equal", "different", or a named rounding. `relative_difference` is |A - B| / max(|A|, |B|) in the
    Euclidean norm, `largest_difference` the largest |a - b| of two values.
    """

    name: str
    role: Role
    shape: tuple[int, ...]
    codes_differ: int | None
    relation: str
    relative_difference: float
    largest_difference: float


def compare_tensors(a: Opened, b: Opened) -> Iterator[TensorComparison]:
    """Every tensor of two models whose block tensors have the same names and shapes, in the order of `tensor_names`.

    A head that only one of them has is compared with the other's embedding, which is its head. Where a tensor is
    quantised in one model alone, its values are compared as floats.
    """
    for name in tensor_names(a, b):
        x, y = _read(a, name), _read(b, name)
        shape = tuple(x.shape)
        if isinstance(x, TernaryTensor) and isinstance(y, TernaryTensor):
            codes = _codes_that_differ(x, y)
            alike = x.scales.size == y.scales.size
            related = relation(x.scales if alike else x.row_scales(), y.scales if alike else y.row_scales(),
                               _SCALE_ROUNDINGS)
        else:
            codes, related = None, relation(_floats(x), _floats(y), _FLOAT_ROUNDINGS)
        yield TensorComparison(name, role_of(a, name), shape, codes, *related)


def tensor_names(a: Opened, b: Opened) -> tuple[str, ...]:
    """The names of A's tensors, and the head's if B alone has one of its own."""
    return tuple(dict.fromkeys((*a.names(), *b.names())))


def role_of(model: Opened, name: str) -> Role:
    """What a tensor is for."""
    if name in (_HEAD, _EMBEDDING):
        return "head" if name == _HEAD else "embedding"
    if name in linear_names(model.config.with_changes(linear_type="ternary")):
        return "block linear"
    return "norm" if name.endswith("norm.weight") else "router"


def relation(a: NDArray, b: NDArray, roundings: dict[str, Rounding] = _FLOAT_ROUNDINGS) -> tuple[str, float, float]:
    """How two float arrays of one shape are related, their relative and their largest difference.

    The relation is "equal", the first of `roundings` (B of A, then A of B) that holds for every value, or "different".
    """
    holds = [("", "B", lambda values: values)]
    holds += [(form, side, rounding) for form, rounding in roundings.items() for side in "BA"]
    squares_a = squares_b = squares = largest = 0.0
    x_flat, y_flat = a.reshape(-1), b.reshape(-1)
    for start in range(0, len(x_flat), _BLOCK):
        x = x_flat[start:start + _BLOCK].astype(np.float32)
        y = y_flat[start:start + _BLOCK].astype(np.float32)
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            holds = [(form, side, rounding) for form, side, rounding in holds
                     if np.array_equal(rounding(x) if side == "B" else x, y if side == "B" else rounding(y))]
        difference = np.abs(x.astype(np.float64) - y)
        squares_a, squares_b = squares_a + _square(x), squares_b + _square(y)
        squares, largest = squares + _square(difference), max(largest, float(difference.max(initial=0.0)))
    text = DIFFERENT
    if holds:
        form, side, _ = holds[0]
        text = f"{side} is {form.format('A' if side == 'B' else 'B')}" if form else EQUAL
    scale = max(squares_a, squares_b) ** 0.5
    return text, squares ** 0.5 / scale if scale else 0.0, largest


def _square(values: NDArray) -> float:
    return float(np.square(values, dtype=np.float64).sum())


def _read(model: Opened, name: str) -> NDArray | TernaryTensor:
    return model.read(_EMBEDDING if name == _HEAD and name not in model.names() else name)


def _codes_that_differ(a: TernaryTensor, b: TernaryTensor) -> int:
    # Fields that only fill up the last stripes mean nothing, so unequal bytes are unpacked.
    return 0 if np.array_equal(a.packed, b.packed) else int((a.codes() != b.codes()).sum())


def _floats(tensor: NDArray | TernaryTensor) -> NDArray:
    return tensor.codes() * tensor.row_scales()[:, None] if isinstance(tensor, TernaryTensor) else tensor
