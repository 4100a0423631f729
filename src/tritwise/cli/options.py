"""What several commands read from their options."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from cyclopts import Parameter

from tritwise.cli.output import Texts
from tritwise.common.errors import TritwiseError

RopeScalingName = Literal["linear", "yarn", "llama3", "ntk"]


@Parameter(name="*")
@dataclass(frozen=True)
class SamplingOptions:
    """How tokens are chosen and where a text ends: settings of `Model.generate` by the same names.

    Parameters
    ----------
    temperature
        0: the likeliest token.
    top_k
        Of so many tokens; 0: all.
    top_p
        Of this much probability.
    min_p
        Of at least this part of the best.
    repetition_penalty
        Divides logits seen; 1: off.
    frequency_penalty
        Taken off a logit for each use.
    presence_penalty
        Taken off a logit once used.
    seed
        The same seed, the same text.
    stop
        End before it; repeatable.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    stop: Texts = ()

    def settings(self) -> dict[str, Any]:
        """Keyword arguments of `Model.generate`."""
        return asdict(self)


NO_SAMPLING = SamplingOptions()


def rope_scaling(name: RopeScalingName | None, scale: float | None) -> dict[str, Any] | None:
    """`load`'s `rope_scaling` from --rope-scaling and --rope-scale."""
    if name is None:
        if scale is not None:
            raise TritwiseError("--rope-scale needs --rope-scaling", fix="for example --rope-scaling yarn")
        return None
    return {"rope_type": name, "factor": scale}
