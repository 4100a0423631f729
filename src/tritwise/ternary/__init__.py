"""What ternary means. Every other implementation (torch, C++, file formats) is tested against this room.

    codes, scale = absmean(weight)          # weight ~ codes * scale, codes in {-1, 0, +1}
    x_codes, x_scale = absmax(activation)   # activation ~ x_codes * x_scale, one scale a token
    y = matmul(x_codes, codes) * (x_scale * scale)

numpy only.
"""

from tritwise.ternary.codecs import pack_2bit, pack_base3, unpack_2bit, unpack_base3
from tritwise.ternary.product import bitlinear, matmul
from tritwise.ternary.quantisers import EPS, absmax, absmean, sign

__all__ = [
    "EPS", "absmax", "absmean", "bitlinear", "matmul", "pack_2bit", "pack_base3", "sign", "unpack_2bit",
    "unpack_base3",
]
