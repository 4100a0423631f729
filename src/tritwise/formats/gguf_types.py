"""The tensor types of GGUF files: how many bytes a shape takes, and what the bytes mean.

Numbers, block sizes and layouts are those of ggml (ggml.h, ggml-common.h, ggml-quants.c) and, above 35, of the forks:
I2_S of bitnet.cpp, IQ1_BN, IQ2_BN and IQ2_BN_R4 of ik_llama.cpp. A row is the innermost axis.

| type | weights a block | bytes | a block |
|---|---|---|---|
| Q4_0 | 32 | 18 | f16 d; byte j holds weights j and 16 + j; w = d (q - 8) |
| Q8_0 | 32 | 34 | f16 d; w = d q |
| Q4_K | 256 | 144 | f16 d, f16 m; eight 6-bit scales and minima in 12 bytes; w = d s q - m t |
| Q6_K | 256 | 210 | low nibbles, upper two bits, sixteen int8 scales, f16 d; w = d s (q - 32) |
| TQ1_0 | 256 | 54 | five codes a byte in base 3, as fractions of 256 (32 and 16 bytes), four in 4 bytes, f16 d |
| TQ2_0 | 256 | 66 | byte j of 32 holds codes j, 32 + j, 64 + j, 96 + j from its low bits on; f16 d |
| I2_S | 128 | 32 | byte j holds codes j, 32 + j, 64 + j, 96 + j from its high bits on; f32 d in 32 bytes behind all |
| IQ1_BN | 64 | 13 | a row begins with f16 d; 12 bytes of five codes, base 3, and one with every sixteenth weight's |
| IQ2_BN | 64 | 16 | a row begins with f32 d; byte j holds codes j, 16 + j, 32 + j, 48 + j from its low bits on |
| IQ2_BN_R4 | 64 | 16 | four rows: four f32, then for 16 inputs 4 bytes a row: byte i has i, 4 + i, 8 + i, 12 + i |

In all ternary types a stored field is code + 1.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class GGUFType:
    """`inputs` weights a block of `block_bytes`, `row_bytes` beside the blocks of a row, `tensor_bytes` behind all."""

    name: str
    inputs: int
    block_bytes: int
    row_bytes: int = 0
    tensor_bytes: int = 0
    rows: int = 1  # that are stored together


GGUF_TYPES = {
    0: GGUFType("F32", 1, 4),
    1: GGUFType("F16", 1, 2),
    2: GGUFType("Q4_0", 32, 18),
    8: GGUFType("Q8_0", 32, 34),
    12: GGUFType("Q4_K", 256, 144),
    14: GGUFType("Q6_K", 256, 210),
    30: GGUFType("BF16", 1, 2),
    34: GGUFType("TQ1_0", 256, 54),
    35: GGUFType("TQ2_0", 256, 66),
    36: GGUFType("I2_S", 128, 32, tensor_bytes=32),
    134: GGUFType("IQ1_BN", 64, 13, row_bytes=2),
    135: GGUFType("IQ2_BN", 64, 16, row_bytes=4),
    335: GGUFType("IQ2_BN_R4", 64, 16, row_bytes=4, rows=4),
}


def tensor_bytes(number: int, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor. Raises ValueError where rows do not fill whole blocks, with the nearest sizes that do."""
    kind, columns = GGUF_TYPES[number], shape[-1]
    rows = 1
    for size in shape[:-1]:
        rows *= size
    for size, unit, what in ((columns, kind.inputs, "inputs a row"), (rows, kind.rows, "rows")):
        if size % unit:
            below, above = size // unit * unit, -(-size // unit) * unit
            raise ValueError(f"{kind.name} stores {unit} {what} together, and {size} is no multiple: "
                             + (f"{below} or {above} would fit" if below else f"{above} would fit"))
    return rows * (columns // kind.inputs * kind.block_bytes + kind.row_bytes) + kind.tensor_bytes
