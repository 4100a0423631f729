"""Triton's interpreter without its check of every addition for overflow, which takes several times as long."""

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick_interpreter(*, gemv: bool = True) -> Iterator[None]:
    """Until it ends. Without `gemv` one token takes the kernel of two, which the interpreter runs ten times faster.

    Both kernels give the same sums, which tests/kernels hold.
    """
    from triton.runtime import interpreter

    import tritwise.kernels  # noqa: F401

    linear = sys.modules["tritwise.kernels.linear"]
    builder, choose = interpreter.interpreter_builder, linear.choose
    options = builder.options
    builder.options = dataclasses.replace(options, sanitize_overflow=False)
    if not gemv:
        linear.choose = lambda m, n, k4, device: choose(max(2, m), n, k4, device)
    try:
        yield
    finally:
        builder.options, linear.choose = options, choose
