"""Rotary frequencies against transformers' own functions, and every form in which config.json may hold a scaling."""

import json

import numpy as np
import pytest
import transformers
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from tritwise import ModelConfig, TritwiseError

TINY = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 512}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 512}
SCALINGS = {
    "default": None,
    "linear": {"rope_type": "linear", "factor": 3.0},
    "yarn": YARN,
    "yarn of DeepSeek": YARN | {"mscale": 0.707, "mscale_all_dim": 1.3, "beta_fast": 24.0, "beta_slow": 2.0},
    "yarn of gpt-oss": YARN | {"truncate": False, "factor": 32.0},
    "yarn with a factor of attention": YARN | {"attention_factor": 1.5},
    "yarn with a step for a ramp": YARN | {"beta_fast": 1.0, "beta_slow": 1.0, "truncate": False},
    "llama3": LLAMA3,
    "llama3 of another shape": LLAMA3 | {"factor": 3.5, "low_freq_factor": 0.7, "high_freq_factor": 9.0},
}
SIZES = [(theta, head_dim) for theta in (1e4, 5e5, 2500.0, 12345.0) for head_dim in (16, 34, 64, 96, 128, 256)]


@pytest.fixture(autouse=True)
def _quietly():
    # transformers warns of a length that is not factor x original; the lengths here are meant.
    transformers.utils.logging.set_verbosity_error()


def ours_and_theirs(theta, head_dim, scaling):
    values = TINY | {"head_dim": head_dim, "rope_theta": theta, "rope_scaling": scaling and dict(scaling),
                     "max_position_embeddings": 4096}
    ours = ModelConfig.from_hf({"model_type": "llama", **values}).rotary()
    config = LlamaConfig(**values)
    theirs = (ROPE_INIT_FUNCTIONS[scaling["rope_type"]](config) if scaling
              else LlamaRotaryEmbedding.compute_default_rope_parameters(config))
    return ours, theirs


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=list(SCALINGS))
def test_frequencies_are_those_of_transformers_bit_for_bit_where_torchs_power_is_rounded_right(scaling):
    equal_powers = 0
    for theta, head_dim in SIZES:
        plain, plain_theirs = ours_and_theirs(theta, head_dim, None)
        ours, (theirs, factor) = ours_and_theirs(theta, head_dim, scaling)
        theirs = theirs.numpy()
        assert ours.inverse_frequencies.dtype == theirs.dtype == np.float32
        assert ours.attention_factor == factor
        same = plain.inverse_frequencies == plain_theirs[0].numpy()
        equal_powers += same.all()
        np.testing.assert_array_equal(ours.inverse_frequencies[same], theirs[same])
        # Elsewhere their power is one unit in the last place off, which at most four further roundings carry on.
        np.testing.assert_allclose(ours.inverse_frequencies, theirs, rtol=6 * 2**-23)
    assert equal_powers >= len(SIZES) // 2


def test_the_power_is_the_right_rounding_of_the_exact_one():
    theta, head_dim = 12345.0, 96  # here three of torch's are not
    exponents = (np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)).astype(np.longdouble)
    expected = np.float32(1) / np.power(np.longdouble(theta), exponents).astype(np.float32)
    ours, (theirs, _) = ours_and_theirs(theta, head_dim, None)
    np.testing.assert_array_equal(ours.inverse_frequencies, expected)
    assert (theirs.numpy() != expected).any()


@pytest.mark.parametrize("scaling", [value for value in SCALINGS.values() if value], ids=list(SCALINGS)[1:])
@pytest.mark.parametrize("form", ["rope_scaling", "rope_parameters", "old names", "theta outside"])
def test_every_form_of_config_json_gives_the_same_configuration(scaling, form):
    expected = ModelConfig(**TINY, model_type="llama", linear_type="dense", rope_theta=5e4, rms_norm_eps=1e-6,
                           max_position_embeddings=4096, rope_scaling=scaling)
    forms = {
        "rope_scaling": {"rope_theta": 5e4, "rope_scaling": scaling},
        "rope_parameters": {"rope_parameters": scaling | {"rope_theta": 5e4}},
        "old names": {"rope_theta": 5e4, "rope_scaling": scaling | {"type": scaling["rope_type"]}},
        "theta outside": {"rope_theta": 5e4, "rope_parameters": scaling | {"partial_rotary_factor": 1.0}},
    }
    values = {"model_type": "llama", **TINY, "max_position_embeddings": 4096, **forms[form]}
    assert ModelConfig.from_hf(values) == expected


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=list(SCALINGS))
def test_what_is_written_opens_in_transformers_with_the_same_rotary_settings(scaling, tmp_path):
    config = ModelConfig(**TINY, model_type="llama", rope_theta=5e4, rope_scaling=scaling, max_position_embeddings=4096)
    (tmp_path / "config.json").write_text(json.dumps(config.to_hf(dtype="bfloat16")))
    theirs = LlamaConfig.from_pretrained(tmp_path)
    assert theirs.rope_parameters == (scaling or {"rope_type": "default"}) | {"rope_theta": 5e4}
    assert ModelConfig.from_hf(json.loads((tmp_path / "config.json").read_text())) == config
    assert ModelConfig.from_hf(theirs.to_dict()).rope_scaling == config.rope_scaling


def test_the_trained_positions_are_the_models_when_a_scaling_names_none():
    for scaling in (YARN, LLAMA3):
        short = {key: value for key, value in scaling.items() if key != "original_max_position_embeddings"}
        values = TINY | {"max_position_embeddings": 1024, "rope_scaling": short}
        config = ModelConfig.from_hf({"model_type": "llama", **values})
        theirs = LlamaConfig(**(values | {"rope_scaling": dict(short)}))
        assert config.rope_scaling.original_max_position_embeddings == 1024
        assert theirs.rope_parameters["original_max_position_embeddings"] == 1024
    assert config.longest_context == 8192


def test_yarn_without_a_factor_takes_the_ratio_of_the_positions():
    values = TINY | {"max_position_embeddings": 2048, "rope_scaling": YARN | {"factor": None}}
    assert ModelConfig.from_hf({"model_type": "llama", **values}).rope_scaling.factor == 4.0


@pytest.mark.parametrize(("scaling", "reason"), [
    ({"rope_type": "dynamic", "factor": 2.0}, "'dynamic' is not supported: its frequencies change with the length"),
    ({"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}, "'longrope' is not supported"),
    ({"rope_type": "ntk", "factor": 2.0}, "'ntk' is not supported"),
    ({"factor": 2.0}, "{'factor': 2.0} is not supported"),
    ({"rope_type": "linear"}, r"rope_scaling\.factor: Field required"),
    ({"rope_type": "linear", "factor": 0.5}, r"rope_scaling\.factor"),
    ({"rope_type": "linear", "factor": float("inf")}, r"rope_scaling\.factor"),
    ({"rope_type": "linear", "factor": 2.0, "beta_fast": 32}, "linear has no beta_fast"),
    ({"rope_type": "linear", "factor": 2.0, "original_max_position_embeddings": 9}, "linear has no original_max"),
    ({"rope_type": "linear", "factor": 2.0, "high": 3}, r"rope_scaling\.high: this key is unknown"),
    (YARN | {"low_freq_factor": 1.0}, "yarn has no low_freq_factor"),
    (YARN | {"beta_fast": 1.0, "beta_slow": 2.0}, "beta_fast 1.0 is below beta_slow 2.0"),
    (YARN | {"partial_rotary_factor": 0.5}, "partial_rotary_factor is set"),
    (YARN | {"rope_theta": 1.0}, "has no logarithm"),
    (LLAMA3 | {"high_freq_factor": None}, "needs low_freq_factor and high_freq_factor"),
    (LLAMA3 | {"high_freq_factor": 1.0}, "must be above"),
    (LLAMA3 | {"mscale": 1.0}, "llama3 has no mscale"),
    ("yarn", "rope_(scaling|parameters) is 'yarn'"),
])
def test_scalings_that_are_not_computed_are_refused_by_name(scaling, reason):
    for key in ("rope_scaling", "rope_parameters"):
        with pytest.raises(TritwiseError, match=reason):
            ModelConfig.from_hf({"model_type": "llama", **TINY, key: scaling})


def test_a_model_is_stretched_by_a_factor_or_as_far_as_a_context():
    config = ModelConfig(**TINY, max_position_embeddings=512)
    by_factor = config.with_rope_scaling({"rope_type": "yarn", "factor": 4})
    assert by_factor == config.with_rope_scaling({"type": "yarn"}, context=2048)
    assert by_factor.longest_context == by_factor.max_position_embeddings == 2048
    assert by_factor.rope_scaling.original_max_position_embeddings == 512
    assert config.with_rope_scaling({"rope_type": "linear", "factor": 64}).longest_context == 32768
    assert config.with_rope_scaling({"rope_type": "llama3"}, context=32768).rope_scaling.factor == 64
    # A second scaling takes the place of the first and starts from what the model was trained on.
    assert by_factor.with_rope_scaling({"rope_type": "yarn", "factor": 2}).rope_scaling.factor == 2
    assert by_factor.with_rope_scaling({"rope_type": "yarn", "factor": 8}).longest_context == 4096
    assert config.with_rope_scaling({"rope_type": "yarn"}, context=100).rope_scaling.factor == 1.0


def test_ntk_is_the_theta_with_which_the_slowest_wave_turns_as_far_as_before():
    config = ModelConfig(**TINY, max_position_embeddings=512)
    changed = config.with_rope_scaling({"rope_type": "ntk", "factor": 4})
    assert changed.rope_scaling is None
    assert changed.longest_context == 2048
    before, after = config.rotary().inverse_frequencies, changed.rotary().inverse_frequencies
    assert after[0] == before[0] == 1.0
    np.testing.assert_allclose(after[-1] * 4, before[-1], rtol=1e-6)
    # What transformers' "dynamic" reaches at the length 4 x 512 with the factor that makes its theta this one.
    theirs = LlamaConfig(**TINY, max_position_embeddings=512, rope_scaling={"rope_type": "dynamic", "factor": 1.0})
    np.testing.assert_allclose(ROPE_INIT_FUNCTIONS["dynamic"](theirs, seq_len=2048)[0].numpy(), after, rtol=1e-6)


@pytest.mark.parametrize(("scaling", "reason"), [
    ({"rope_type": "yarn"}, "neither a factor nor a context"),
    ({"rope_type": "yarn", "factor": 0.5}, "factor is 0.5"),
    ({"rope_type": "yarn", "factor": "4"}, "factor is '4'"),
    ({"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 0}, "a number of tokens is needed"),
    ({"rope_type": "ntk", "factor": 4, "beta_fast": 3}, "ntk has no beta_fast"),
    ({"rope_type": "dynamic", "factor": 4}, "'dynamic' is not supported"),
    ({"factor": 4}, "rope_type None is not supported"),
    ({"rope_type": "yarn", "factor": 4, "slope": 3}, "slope: this key is unknown"),
])
def test_a_stretching_that_means_nothing_is_refused(scaling, reason):
    with pytest.raises(TritwiseError, match=reason):
        ModelConfig(**TINY).with_rope_scaling(scaling)
