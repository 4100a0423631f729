"""Kernels compiled ahead of time for a GPU that is not there, and what their machine code consists of.

Triton's wheel brings ptxas and cuobjdump. Tests and the benchmark assert on what they say: tensor-core instructions,
wide loads, no spills, and how many instructions it takes to unpack a weight.
"""

import collections
import os
import re
import subprocess
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tritwise.common.errors import TritwiseError
from tritwise.kernels.planar import padded
from tritwise.kernels.tiles import Tile

# An instruction: its address, an optional predicate, its name with its modifiers, its operands.
_INSTRUCTION = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9_.a-z]*)([^;]*);", re.MULTILINE)


@dataclass(frozen=True)
class MachineCode:
    """The listing, the instructions (address, name, operands) in order, registers a thread, bytes of shared memory."""

    sass: str
    instructions: list[tuple[int, str, str]]
    registers: int
    shared: int

    def count(self, pattern: str, instructions: list[tuple[int, str, str]] | None = None) -> int:
        """How many instructions have a name that matches the regular expression from its beginning."""
        of = self.instructions if instructions is None else instructions
        return sum(1 for _, name, _ in of if re.match(pattern, name))

    def loops(self) -> list[list[tuple[int, str, str]]]:
        """The bodies of the loops: what lies between the target of a backward branch and the branch."""
        found = []
        for address, name, operands in self.instructions:
            target = re.search(r"0x([0-9a-f]+)", operands) if name.startswith("BRA") else None
            if target and int(target[1], 16) < address:
                begin = int(target[1], 16)
                found.append([one for one in self.instructions if begin <= one[0] <= address])
        return found

    def main_loop(self, pattern: str) -> list[tuple[int, str, str]]:
        """The body of the loop with the most instructions that match; [] where no loop has one."""
        return max(self.loops(), key=lambda body: self.count(pattern, body), default=[])

    def names(self, instructions: list[tuple[int, str, str]] | None = None) -> collections.Counter:
        of = self.instructions if instructions is None else instructions
        return collections.Counter(name.split(".")[0] for _, name, _ in of)


def machine_code(kernel, arguments: dict, constants: dict, *, capability: int = 90, warps: int = 4,
                 stages: int = 3, sixteens: Collection[str] = ("K", "K4", "N")) -> MachineCode:
    """A kernel's machine code for a compute capability (80, 90).

    `arguments` gives Triton's type of each argument ("*i8", "i32"); pointers and the arguments named in `sixteens` are
    compiled as divisible by 16, as the launch specialises them for our shapes. Raises TritwiseError under the
    interpreter, which replaces the kernels by Python functions.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    if not isinstance(kernel, triton.JITFunction):
        raise TritwiseError("there is nothing to compile under Triton's interpreter", fix="unset TRITON_INTERPRET")
    signature = {name: "constexpr" if name in constants else arguments[name] for name in kernel.arg_names}
    places = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names)
              if name not in constants and (arguments[name].startswith("*") or name in sixteens)}
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(name),): value for name, value in constants.items()},
                       places)
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32),
                              options={"num_warps": warps, "num_stages": stages, "enable_fp_fusion": False})
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        sass = subprocess.run([tool, "-sass", cubin], capture_output=True, text=True, check=True, env=_tools()).stdout
        usage = subprocess.run([tool, "-res-usage", cubin], capture_output=True, text=True, check=True,
                               env=_tools()).stdout
    instructions = [(int(m[1], 16), m[2], m[3]) for m in _INSTRUCTION.finditer(sass)]
    registers = re.search(r"REG:(\d+)", usage)
    if not instructions or not registers:
        raise TritwiseError("cuobjdump gave no machine code", why=usage[-500:])
    return MachineCode(sass, instructions, int(registers[1]), compiled.metadata.shared)


def tile_code(tile: Tile, k: int, *, capability: int = 90, tokens: int = 1, residual: bool = False) -> MachineCode:
    """The machine code of a product kernel with the tiles that it would be launched with for rows of k weights."""
    from tritwise.kernels import gemv, prefill, small_batch

    k4 = padded(k) // 4
    _, splits, even = tile.divided(k4)
    constants = {"BN": tile.bn, "BK": tile.bk, "STEPS": 0, "SPLIT": splits > 1, "EVEN": even, "HAS_RESIDUAL": residual}
    arguments = dict.fromkeys(("M", "N", "K4", "K64", "steps", "splits"), "i32")
    arguments |= dict.fromkeys(("x_scale", "w_scale", "residual", "out"), "*fp32")
    arguments |= dict.fromkeys(("x_sums", "sums", "counters"), "*i32")
    if tile.kernel == "gemv":
        kernel, arguments["x"], arguments["w"] = gemv.gemv, "*i32", "*i32"
        constants |= {"TOKENS": tokens, "ASM": True}
    else:
        kernel, arguments["x"], arguments["w"] = small_batch.small_batch, "*i8", "*i8"
        constants["BM"] = tile.bm
        if tile.kernel == "prefill":
            kernel, constants["GROUP"] = prefill.prefill, 8
    return machine_code(kernel, arguments, constants, capability=capability, warps=tile.warps, stages=tile.stages)


def _tools() -> dict[str, str]:
    """cuobjdump looks for nvdisasm on PATH."""
    import triton

    folder = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ.get('PATH', '')}"}
