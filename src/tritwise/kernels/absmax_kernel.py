"""What stands between two products, in one pass: gated activation, RMSNorm, absmax quantisation, sums of the codes.

One program a token, the whole token in registers. Reads: 4 K bytes of the token (8 K if it is gate and up) and, from
L2, 4 K of the gain. Writes: K bytes of codes and 8. Bound: those bytes; for one token, the launch.

Codes are those of `tritwise.ternary.absmax` of the same float32 values, bit for bit: every operation has one IEEE
rounding (div_rn; compiled with enable_fp_fusion=False), and adding and subtracting 1.5 * 2^23 rounds half to even.

Training's kernel (training.py) is of the same functions; it reads other types, keeps rstd, and pads nothing.
"""

import triton
import triton.language as tl


@triton.jit
def rms_normed(value, K, eps):
    """A token's values [BLOCK], zero behind K, times rstd; and rstd."""
    mean = tl.div_rn(tl.sum(value * value, axis=0), tl.cast(K, tl.float32))
    rstd = tl.div_rn(1.0, tl.sqrt_rn(mean + eps))
    return value * rstd, rstd


@triton.jit
def absmax_codes(value):
    """A token's codes as int32 [BLOCK] and its scale."""
    largest = tl.maximum(tl.max(tl.abs(value), axis=0), 1e-5)
    rounded = (value * (tl.div_rn(1.0, largest) * 127.0) + 12582912.0) - 12582912.0
    return rounded.to(tl.int32), tl.div_rn(largest, 127.0)


@triton.jit
def absmax_kernel(x, gain, codes, scale, sums, eps, K, K4,
                  ACTIVATION: tl.constexpr, NORM: tl.constexpr, BLOCK: tl.constexpr):
    """Token number program_id. x float32 [M, K], or [M, 2 K] (gate, up) if ACTIVATION is "silu" or "relu2".

    codes int8 [M, 4 K4] (zeros behind K), scale float32 [M], sums int32 [M]: of the codes before 3 K4. BLOCK >= 4 K4.
    """
    token = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK)
    inside = k < K
    if ACTIVATION == "none":
        value = tl.load(x + token * K + k, mask=inside, other=0.0)
    else:
        gate = tl.load(x + token * (K * 2) + k, mask=inside, other=0.0)
        up = tl.load(x + token * (K * 2) + K + k, mask=inside, other=0.0)
        if ACTIVATION == "silu":
            value = tl.div_rn(gate, 1.0 + tl.exp(-gate)) * up
        else:
            positive = tl.maximum(gate, 0.0)
            value = positive * positive * up
    if NORM:
        value, _ = rms_normed(value, K, eps)
        value = value * tl.load(gain + k, mask=inside, other=0.0)
    code, of_token = absmax_codes(value)
    tl.store(codes + token * (K4 * 4) + k, code.to(tl.int8), mask=k < K4 * 4)
    tl.store(scale + token, of_token)
    tl.store(sums + token, tl.sum(tl.where(k < K4 * 3, code, 0), axis=0))
