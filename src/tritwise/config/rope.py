"""Rotary embedding's frequencies, and the ways to stretch them over more positions than a model was trained on.

    inverse, factor = config.rotary()            # float32 [head_dim / 2], float
    cos = cos(position * inverse) * factor       # and sin alike

- `linear` divides every frequency by `factor` (Position Interpolation, arXiv 2306.15595, equation 4).
- `yarn`, NTK by parts, divides those of long waves, keeps those of short ones, with a ramp over the dimensions between,
  and lets queries and keys grow (YaRN, arXiv 2309.00071, sections 3.2 and 3.4).
- `llama3` is the same idea with the ramp over the frequency (Llama 3.1's reference code).
- `ntk`, NTK-aware scaling (YaRN, section 3.1), is nothing but a larger `rope_theta`, so config.json has no type for it:
  `stretched` changes the theta.
- `dynamic`, the same theta but by the length that a sequence has reached, is refused: at every step all cached keys
  would have to turn.

Keys, formulas and roundings are those of transformers' modeling_rope_utils.py.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

_SCALINGS = ("linear", "yarn", "llama3")
_REFUSED = {
    "dynamic": "its frequencies change with the length a sequence has reached, and cached keys would be wrong; "
               "for one fixed length a larger rope_theta is the same",
    "longrope": "its lists of factors are not implemented",
    "su": "its lists of factors are not implemented",
}
_YARN_ONLY = ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate")
_LLAMA3_ONLY = ("low_freq_factor", "high_freq_factor")

# The normal numbers of float32, in which frequencies are computed.
SMALLEST_FLOAT, LARGEST_FLOAT = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)

Positive = Annotated[float, Field(ge=SMALLEST_FLOAT, le=LARGEST_FLOAT)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class RopeScaling(BaseModel):
    """`rope_scaling` of a config.json (transformers' `RopeParameters` without `rope_theta`). Immutable.

    `factor` (at least 1) is by how much the positions are stretched. `original_max_position_embeddings` are those of
    the training, for yarn and llama3; the other keys belong to the type in whose comment they stand.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rope_type: Literal["linear", "yarn", "llama3"]
    factor: Annotated[float, Field(ge=1, le=2**31)]
    original_max_position_embeddings: Annotated[int, Field(gt=0, lt=2**31, strict=True)] | None = None
    attention_factor: Annotated[float, Field(ge=0, le=LARGEST_FLOAT)] | None = None  # yarn; from `factor` if None
    beta_fast: Positive | None = None        # yarn: rotations above which a frequency is kept; 32
    beta_slow: Positive | None = None        # yarn: rotations below which it is divided; 1
    mscale: Finite | None = None             # yarn: numerator and ...
    mscale_all_dim: Finite | None = None     # ... denominator of the attention factor
    truncate: bool | None = None             # yarn: whether the ramp's ends are whole numbers; they are
    low_freq_factor: Positive | None = None  # llama3: original / this is the wavelength from which on it is divided
    high_freq_factor: Positive | None = None  # llama3: original / this is the wavelength up to which it is kept

    @model_validator(mode="before")
    @classmethod
    def _accept_old_name(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values = {key: value for key, value in values.items() if value is not None}
        old = values.pop("type", None)  # transformers before version 4.43, which is still written beside the new name
        values.setdefault("rope_type", old)
        rope_type = values["rope_type"]
        if rope_type not in _SCALINGS:
            known = f"{', '.join(_SCALINGS)} are"
            raise ValueError(f"rope_type {rope_type!r} is not supported: "
                             + (_REFUSED.get(rope_type, known) if isinstance(rope_type, str) else known))
        return values

    @model_validator(mode="after")
    def _check(self) -> "RopeScaling":
        others = {"linear": (*_YARN_ONLY, *_LLAMA3_ONLY, "original_max_position_embeddings"),
                  "yarn": _LLAMA3_ONLY, "llama3": _YARN_ONLY}[self.rope_type]
        for key in others:
            if getattr(self, key) is not None:
                raise ValueError(f"rope_type {self.rope_type} has no {key}")
        if self.rope_type == "llama3":
            if self.low_freq_factor is None or self.high_freq_factor is None:
                raise ValueError("rope_type llama3 needs low_freq_factor and high_freq_factor")
            if self.high_freq_factor <= self.low_freq_factor:
                raise ValueError(f"high_freq_factor {self.high_freq_factor} must be above "
                                 f"low_freq_factor {self.low_freq_factor}")
        if (self.beta_fast or 32.0) < (self.beta_slow or 1.0):
            raise ValueError(f"beta_fast {self.beta_fast or 32.0} is below beta_slow {self.beta_slow or 1.0}")
        return self

    @property
    def positions(self) -> int:
        """Positions that the scaling was made for; 0 for linear, which does not say what it started from."""
        return int(self.factor * (self.original_max_position_embeddings or 0))


class Rotary(NamedTuple):
    """Inverse frequencies float32 [head_dim / 2], and what cos and sin are multiplied by."""

    inverse_frequencies: NDArray[np.float32]
    attention_factor: float


def filled(values: dict[str, Any], max_position_embeddings: Any) -> dict[str, Any]:
    """`rope_scaling` with what transformers takes for keys left out, which follows from the model's positions."""
    values = {key: value for key, value in values.items() if value is not None}
    if values.get("rope_type", values.get("type")) in ("yarn", "llama3"):
        original = values.setdefault("original_max_position_embeddings", max_position_embeddings)
        sizes = (original, max_position_embeddings)
        if "factor" not in values and all(isinstance(size, int) and size < 2**31 for size in sizes):
            values["factor"] = max_position_embeddings / max(original, 1)
    return values


def stretched(values: Mapping[str, Any], *, head_dim: int, theta: float, positions: int,
              context: int | None) -> tuple[dict[str, Any] | None, float, int]:
    """The `rope_scaling`, `rope_theta` and positions with which a model of `positions` is used for more of them.

    `values` are keys of `RopeScaling` or of rope_type `ntk`. `factor` left out is what reaches `context`;
    `original_max_position_embeddings` left out are `positions`, and llama3's two factors Llama 3.1's, 1 and 4.
    Raises ValueError when nothing says how far; the other keys are checked by `RopeScaling`.
    """
    values = {key: value for key, value in values.items() if value is not None}
    values["rope_type"] = values.pop("rope_type", values.pop("type", None))
    original = values.pop("original_max_position_embeddings", positions)
    if not isinstance(original, int) or original < 1:
        raise ValueError(f"original_max_position_embeddings is {original!r}, a number of tokens is needed")
    factor = values.pop("factor", None)
    if factor is None:
        if context is None:
            raise ValueError("neither a factor nor a context says how far")
        factor = max(1.0, context / original)
    if not isinstance(factor, int | float) or not 1 <= factor < math.inf:
        raise ValueError(f"factor is {factor!r}, a number of at least 1 is needed")
    longest = max(positions, math.floor(factor * original))
    if values["rope_type"] == "ntk":
        if set(values) != {"rope_type"}:
            raise ValueError(f"rope_type ntk has no {min(set(values) - {'rope_type'})}")
        if head_dim < 4:
            raise ValueError(f"rope_type ntk needs more than one frequency, but head_dim is {head_dim}")
        return None, theta * factor ** (head_dim / (head_dim - 2)), longest
    if values["rope_type"] == "llama3":
        values = {"low_freq_factor": 1.0, "high_freq_factor": 4.0} | values
    if values["rope_type"] in ("yarn", "llama3"):
        values["original_max_position_embeddings"] = original
    return values | {"factor": factor}, theta, longest


def rotary(head_dim: int, theta: float, scaling: RopeScaling | None) -> Rotary:
    """Inverse frequencies and attention factor, in float32 with transformers' order of operations.

    Only the power is more exact than torch's: taken in float64 and rounded once, where torch's is sometimes one unit
    in the last place off. The angles of far positions depend on these roundings.
    Raises ArithmeticError where the result is not finite.
    """
    try:
        with np.errstate(all="ignore"):
            result = _rotary(head_dim, theta, scaling)
    except ValueError as error:  # of math.log and math.floor
        raise ArithmeticError(str(error)) from None
    if not (np.isfinite(result.inverse_frequencies).all() and 0 <= result.attention_factor <= LARGEST_FLOAT):
        raise ArithmeticError("its frequencies or its attention factor are no numbers")
    return result


def _rotary(head_dim: int, theta: float, scaling: RopeScaling | None) -> Rotary:
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    periods = np.power(np.float64(theta), exponents.astype(np.float64)).astype(np.float32)
    inverse = np.float32(1) / periods
    if scaling is None:
        return Rotary(inverse, 1.0)
    if scaling.rope_type == "linear":
        return Rotary(inverse / np.float32(scaling.factor), 1.0)
    if scaling.rope_type == "llama3":
        return Rotary(_llama3(inverse, scaling), 1.0)
    return Rotary(_yarn(periods, head_dim, theta, scaling), _attention_factor(scaling))


def rope_divisors(head_dim: int, theta: float, scaling: RopeScaling) -> NDArray[np.float32]:
    """By how much a scaling divides each frequency, float32 [head_dim / 2]: `rope_freqs.weight` of GGUF files."""
    plain, scaled = (rotary(head_dim, theta, each).inverse_frequencies.astype(np.float64) for each in (None, scaling))
    return (plain / scaled).astype(np.float32)


def _llama3(inverse: NDArray[np.float32], scaling: RopeScaling) -> NDArray[np.float32]:
    original, factor = scaling.original_max_position_embeddings, np.float32(scaling.factor)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    one = np.float32(1)
    wavelength = one / inverse * np.float32(2 * math.pi)  # a number over a tensor is torch's reciprocal, times it
    is_long, is_short = wavelength > np.float32(original / low), wavelength < np.float32(original / high)
    result = np.where(is_long, inverse / factor, inverse)
    smooth = (one / wavelength * np.float32(original) - np.float32(low)) / np.float32(high - low)
    smoothed = (one - smooth) * result / factor + smooth * result
    return np.where(~is_long & ~is_short, smoothed, result)


def _yarn(periods: NDArray[np.float32], head_dim: int, theta: float, scaling: RopeScaling) -> NDArray[np.float32]:
    def dimension(rotations: float) -> float:
        """The dimension that turns so many times within the original positions."""
        positions = scaling.original_max_position_embeddings
        return head_dim * math.log(positions / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    first, last = dimension(scaling.beta_fast or 32), dimension(scaling.beta_slow or 1)
    if scaling.truncate is not False:
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, head_dim - 1)
    if first == last:
        last += 0.001  # a step instead of a ramp of no width
    steps = np.arange(head_dim // 2, dtype=np.float32) - np.float32(first)
    ramp = np.clip(steps / np.float32(last - first), np.float32(0), np.float32(1))
    kept = np.float32(1) - ramp
    divided = np.float32(1) / (np.float32(scaling.factor) * periods)
    return divided * (np.float32(1) - kept) + np.float32(1) / periods * kept


def _attention_factor(scaling: RopeScaling) -> float:
    def magnitude(mscale: float = 1.0) -> float:
        return 1.0 if scaling.factor <= 1 else 0.1 * mscale * math.log(scaling.factor) + 1.0

    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.mscale and scaling.mscale_all_dim:
        return magnitude(scaling.mscale) / magnitude(scaling.mscale_all_dim)
    return magnitude()
