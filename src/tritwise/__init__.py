"""Tritwise: from raw repositories to a 1.58-bit language model running on a laptop's CPU.

    import tritwise
    model = tritwise.load("runs/quickstart/ternary")
    print(model.generate("def add(a, b):", max_tokens=32).text)
"""

from typing import TYPE_CHECKING, Any

from tritwise.common.errors import TritwiseError

if TYPE_CHECKING:
    from tritwise.config import ModelConfig
    from tritwise.engine import load

__version__ = "0.1.0"
__all__ = ["ModelConfig", "TritwiseError", "__version__", "load"]


def __getattr__(name: str) -> Any:
    # Loaded on first use, so that `tritwise --help` starts at once.
    if name == "ModelConfig":
        from tritwise.config import ModelConfig

        return ModelConfig
    if name == "load":
        from tritwise.engine import load

        return load
    raise AttributeError(f"module 'tritwise' has no attribute {name!r}")
