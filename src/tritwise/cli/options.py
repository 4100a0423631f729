"""What several commands read from their options."""

from typing import Any, Literal

from tritwise.common.errors import TritwiseError

RopeScalingName = Literal["linear", "yarn", "llama3", "ntk"]


def rope_scaling(name: RopeScalingName | None, scale: float | None) -> dict[str, Any] | None:
    """`load`'s `rope_scaling` from --rope-scaling and --rope-scale."""
    if name is None:
        if scale is not None:
            raise TritwiseError("--rope-scale needs --rope-scaling", fix="for example --rope-scaling yarn")
        return None
    return {"rope_type": name, "factor": scale}
