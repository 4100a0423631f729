"""What every settings class is made of: unknown keys are refused, nothing changes after it was checked."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]


class Settings(BaseModel):
    """Base of all settings: frozen, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PerLanguage(Settings):
    """Settings that a language may have its own values of: `languages` maps it to an object of the same field names."""

    def of(self, language: str, name: str):
        """The value of the setting `name` for a language; None when neither has one."""
        own = self.languages.get(language)
        value = None if own is None else getattr(own, name)
        return getattr(self, name, None) if value is None else value
