"""Settings of the property tests, and transformers' BitNet layers imported once."""

import warnings

from hypothesis import settings

with warnings.catch_warnings():
    # @torch.compile in that module makes torch import a part of itself that torch calls deprecated.
    warnings.simplefilter("ignore", DeprecationWarning)
    import transformers.integrations.bitnet  # noqa: F401

# A slow machine is no failure: no time limit for a single example.
settings.register_profile("tritwise", deadline=None)
settings.load_profile("tritwise")
