"""Gated activation and RMSNorm whose result stays a float: what dense products, the head and inner norms read.

One program a token, the whole token in registers. Reads 4 or 2 bytes a value (gate and up: twice as many) and, from L2,
the gain; writes 4 or 2 bytes a value. Bound: those bytes; for one token, the launch.
"""

import triton
import triton.language as tl


@triton.jit
def norm_kernel(x, gain, out, eps, K, ACTIVATION: tl.constexpr, NORM: tl.constexpr, BLOCK: tl.constexpr):
    """Token number program_id: [M, K], or [M, 2 K] (gate, up) with an activation, to [M, K]; float32 inside."""
    token = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, BLOCK)
    inside = k < K
    if ACTIVATION == "none":
        value = tl.load(x + token * K + k, mask=inside, other=0.0).to(tl.float32)
    else:
        gate = tl.load(x + token * (K * 2) + k, mask=inside, other=0.0).to(tl.float32)
        up = tl.load(x + token * (K * 2) + K + k, mask=inside, other=0.0).to(tl.float32)
        if ACTIVATION == "silu":
            value = tl.div_rn(gate, 1.0 + tl.exp(-gate)) * up
        else:
            positive = tl.maximum(gate, 0.0)
            value = positive * positive * up
    if NORM:
        mean = tl.div_rn(tl.sum(value * value, axis=0), tl.cast(K, tl.float32))
        rstd = tl.div_rn(1.0, tl.sqrt_rn(mean + eps))
        value = value * rstd * tl.load(gain + k, mask=inside, other=0.0)
    tl.store(out + token * K + k, value, mask=inside)
