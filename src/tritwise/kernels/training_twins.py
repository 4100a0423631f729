"""What the training kernels compute, in plain torch; the tests hold each kernel to its twin.

Shapes: M tokens, N outputs, K inputs of a linear. Codes are int8. Rows of codes end with zeros up to a multiple of
`ALIGN` bytes, K' for K inputs and N' for N outputs, so that each begins where 16 bytes can be loaded at once.

Sums that decide codes are exact here. A float32 is an integer of 24 bits times a power of two, so the sum of any number
of them is a sum of integers: `exact_sums` keeps one int64 for each window of `WINDOW` exponents. Integers add to the
same in any order, so neither a grid, nor a tile, nor the number of ranks can change a scale. 24 + 11 bits a value
leave room for 2^28 values, more than any matrix here has.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

EPS = 1e-5
ALIGN = 16
WINDOW = 12
WINDOWS = 22  # 254 exponents of finite float32 values
MOST_VALUES = 1 << 28
_LOWEST = -149  # 2^-149 is float32's smallest step


def exact_sums(weight: Tensor) -> Tensor:
    """int64 [2, WINDOWS]: the sum of |w| and that of w, each as integers times 2^(WINDOW * window - 149)."""
    if weight.numel() > MOST_VALUES:
        raise ValueError(f"a weight of {weight.numel()} values is too large for exact sums of {MOST_VALUES}")
    bits = weight.detach().float().flatten().view(torch.int32).long()
    exponent = (bits >> 23) & 0xFF
    mantissa = (bits & 0x7FFFFF) | ((exponent > 0).long() << 23)
    place = exponent.clamp_(min=1).sub_(1)
    window = place // WINDOW
    value = mantissa << (place - window * WINDOW)
    sums = torch.zeros(2, WINDOWS, dtype=torch.int64, device=weight.device)
    if value.numel():
        sums[0].index_add_(0, window, value)
        sums[1].index_add_(0, window, torch.where(bits < 0, -value, value))
    return sums


def scale_of_sums(sums: Tensor, count: int | Tensor) -> Tensor:
    """float32 [..., 2]: mean |w|, clamped from below at 1e-5, and mean w, of exact sums int64 [..., 2, WINDOWS].

    `count` is the number of values, or float64 [..., 1] of several weights.

    The windows are added in float64 from the lowest up, a fixed order, and the mean is rounded to float32 once.
    """
    total = torch.zeros(sums.shape[:-1], dtype=torch.float64, device=sums.device)
    for window in range(WINDOWS):
        total = total + sums[..., window].double() * 2.0 ** (WINDOW * window + _LOWEST)
    mean = (total / count).float()
    return torch.stack([mean[..., 0].clamp(min=EPS), mean[..., 1]], dim=-1)


def weight_codes(weight: Tensor, means: Tensor, linear_type: str) -> Tensor:
    """int8 codes of a weight, or of a shard of it, given the whole's `scale_of_sums` float32 [2]."""
    w = weight.detach().float()
    if linear_type == "ternary":
        return (w * means[0].reciprocal()).clamp_(-1, 1).round_().to(torch.int8)
    return torch.where(w > means[1], 1, -1).to(torch.int8)


def aligned(count: int) -> int:
    """`count` codes with the zeros behind them."""
    return -(-count // ALIGN) * ALIGN


def _filled(codes: Tensor) -> Tensor:
    return F.pad(codes, (0, aligned(codes.shape[1]) - codes.shape[1]))


def one_below_the_other(codes: list[Tensor]) -> Tensor:
    """[N, K'] of codes [N_i, K]."""
    return _filled(torch.cat(codes))


def side_by_side(codes: list[Tensor]) -> Tensor:
    """[K, sum of N_i'] of codes [N_i, K], each transposed."""
    return torch.cat([_filled(each.T) for each in codes], dim=1).contiguous()


def without_gaps(codes_t: Tensor, rows: list[int]) -> Tensor:
    """Codes [K, N'] of `side_by_side`'s [K, sum of N_i']: with zeros at the end only."""
    if all(count % ALIGN == 0 for count in rows):
        return codes_t
    parts = codes_t.split([aligned(count) for count in rows], dim=1)
    return _filled(torch.cat([part[:, :count] for part, count in zip(parts, rows, strict=True)], dim=1))


def quantise_weights(weights: list[Tensor], linear_type: str,
                     scale_dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Of weights [N_i, K] int8 codes `one_below_the_other` and `side_by_side`, and row scales float32 [N]."""
    codes, scales = [], []
    for weight in weights:
        means = scale_of_sums(exact_sums(weight), weight.numel())
        codes.append(weight_codes(weight, means, linear_type))
        scales.append(means[0].to(scale_dtype).float().expand(weight.shape[0]))
    return one_below_the_other(codes), side_by_side(codes), torch.cat(scales)


def quantise_tokens(x: Tensor, gain: Tensor | None, eps: float | None,
                    rstd: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Codes int8 [M, K'], scales float32 [M] and rstd float32 [M] of x [M, K]: RMSNorm, times gain, absmax.

    With `eps` None there is no norm, and rstd is None; with `gain` None no gain. A given `rstd` is taken as it is.
    """
    y = x.float()
    if eps is not None:
        if rstd is None:
            rstd = (y * y).mean(dim=-1).add_(eps).rsqrt_()
        y = y * rstd[:, None]
    if gain is not None:
        y = y * gain.float()
    largest = y.abs().amax(dim=-1, keepdim=True).clamp_(min=EPS)
    codes = (y * (largest.reciprocal() * 127.0)).round_().to(torch.int8)
    return _filled(codes), (largest / 127.0)[:, 0], rstd


def product(x_codes: Tensor, x_scale: Tensor, w_codes: Tensor, w_scale: Tensor, dtype: torch.dtype) -> Tensor:
    """y [M, N] in `dtype`: (x_codes @ w_codes.T), an integer, times (x_scale * w_scale), in float32."""
    accumulator = (x_codes.double() @ w_codes.double().T).float()  # exact: below 2^53
    return (accumulator * (x_scale[:, None] * w_scale)).to(dtype)


def input_gradient(grad: Tensor, codes_t: Tensor, scales: Tensor, rows: list[int]) -> Tensor:
    """dX [M, K] in the dtype of grad [M, N]: per part, grad @ codes in float32, times the part's scale, added up."""
    total, start, codes_start = None, 0, 0
    for count in rows:
        codes = codes_t[:, codes_start:codes_start + count].float()
        part = grad[:, start:start + count].float() @ codes.T * scales[start]
        total = part if total is None else total + part
        start, codes_start = start + count, codes_start + aligned(count)
    return total.to(grad.dtype)


def input_gradient_int8(grad: Tensor, codes_t: Tensor, scales: Tensor, rows: list[int]) -> Tensor:
    """dX [M, K] with grad * scales quantised to int8 a token, as in SwitchBack (arXiv 2304.13013, section 2.2)."""
    grad_codes, grad_scale, _ = quantise_tokens(grad, scales, None)
    ones = torch.ones(codes_t.shape[0], device=grad.device)
    return product(grad_codes, grad_scale, without_gaps(codes_t, rows), ones, grad.dtype)


def weight_gradient(grad: Tensor, x_codes: Tensor, x_scale: Tensor, inner: int) -> Tensor:
    """dW float32 [N, K] = grad.T @ (x_codes * x_scale), the right side rounded to the dtype of grad [M, N]."""
    return grad.float().T @ (x_codes[:, :inner] * x_scale[:, None]).to(grad.dtype).float()


def norm_backward(grad: Tensor, x: Tensor, gain: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of x [M, K], in its dtype, and of gain float32 [K], given that of the normed output."""
    g, normed = grad.float(), x.float() * rstd[:, None]
    mean = (g * normed * gain).mean(dim=-1, keepdim=True)
    return ((g * gain - normed * mean) * rstd[:, None]).to(x.dtype), (g * normed).sum(dim=0)


def pack_codes(codes: Tensor) -> Tensor:
    """int8 codes [N, K] as uint8 [N, K4 = ceil(K / 4)]: byte j holds codes j, j + K4, j + 2 K4, j + 3 K4, each + 1."""
    rows, inner = codes.shape
    width = -(-inner // 4)
    fields = F.pad(codes + 1, (0, 4 * width - inner)).to(torch.uint8).view(rows, 4, width)
    return fields[:, 0] | fields[:, 1] << 2 | fields[:, 2] << 4 | fields[:, 3] << 6


def unpack_codes(packed: Tensor, inner: int) -> Tensor:
    """int8 codes [N, inner] of `pack_codes`."""
    fields = [(packed >> shift & 3).to(torch.int8).sub_(1) for shift in (0, 2, 4, 6)]
    return torch.cat(fields, dim=1)[:, :inner]
