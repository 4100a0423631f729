"""The promise of exactness on the native core: one seed, one text, whatever runs it and beside whom."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from engine_fakes import CORPUS, byte_level_tokenizer, tiny_config

from tritwise.common.errors import TritwiseError
from tritwise.engine import CpuBackend, Model, available_cores, kernels, load
from tritwise.formats import write_model
from tritwise.measure.shapes import random_tensors

TOKENIZER = byte_level_tokenizer()
SAMPLED = {"max_tokens": 24, "temperature": 1.0, "top_k": 60, "top_p": 0.97, "seed": 11}
PROMPT = "".join(CORPUS[:3])
CONFIGS = {
    "ternary": tiny_config(hidden_size=68, intermediate_size=84, num_attention_heads=2, num_key_value_heads=1),
    "binary": tiny_config(linear_type="binary", hidden_act="relu2", tie_word_embeddings=True),
    "dense": tiny_config(linear_type="dense", model_type="llama"),
}


def native_model(config, *, prefill_chunk: int = 256, **settings) -> Model:
    return Model(config, CpuBackend(config, random_tensors(config, seed=3), **settings), tokenizer=TOKENIZER,
                 prefill_chunk=prefill_chunk)


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("kernel", kernels())
def test_same_seed_same_tokens_on_every_kernel_thread_count_and_chunk_alone_and_beside_others(kind, kernel):
    config = CONFIGS[kind]
    with native_model(config, threads=1, kernel="scalar", slots=1) as reference:
        expected = reference.generate(PROMPT, **SAMPLED)
        logits = reference.logits(reference.codec.document(PROMPT))
    assert len(expected.token_ids) == SAMPLED["max_tokens"] or expected.finish_reason == "stop"
    for threads, chunk in ((1, 7), (2, 256), (2, 1)):
        with native_model(config, threads=threads, kernel=kernel, slots=3, prefill_chunk=chunk) as model:
            np.testing.assert_array_equal(model.logits(model.codec.document(PROMPT)), logits)
            others = [model.stream(text, max_tokens=40, seed=1, temperature=2.0) for text in ("x", PROMPT[5:])]
            next(others[0])
            assert model.generate(PROMPT, **SAMPLED).token_ids == expected.token_ids
            for other in others:
                other.cancel()


def test_greedy_takes_the_largest_logit_of_the_model_each_time():
    with native_model(CONFIGS["ternary"]) as model:
        ids = model.codec.document("def f(")
        completion = model.generate(ids, max_tokens=8)
        for token in completion.token_ids:
            assert token == int(model.logits(ids)[-1].argmax())
            ids.append(token)


def test_two_threads_stream_from_one_model_as_if_alone():
    with native_model(CONFIGS["ternary"], slots=2, prefill_chunk=16) as model:
        expected = {text: model.generate(text, **SAMPLED).text for text in ("a", PROMPT, "for i in")}
        results: dict[str, str] = {}

        def call(text: str) -> None:
            results[text] = "".join(model.stream(text, **SAMPLED))

        threads = [threading.Thread(target=call, args=(text,)) for text in expected]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=60)
        assert results == expected


def test_a_cancelled_sequence_leaves_nothing_in_the_slot_for_the_next():
    with native_model(CONFIGS["ternary"], slots=1, prefill_chunk=8) as model:
        expected = model.generate("x = ", **SAMPLED).token_ids
        stream = model.stream(PROMPT, **SAMPLED)
        next(stream)
        stream.cancel()
        assert model.generate("x = ", **SAMPLED).token_ids == expected
        assert list(stream) == [] or stream.completion.finish_reason == "cancelled"


def test_cancelling_from_another_thread_ends_a_stream_in_time():
    with native_model(tiny_config(max_position_embeddings=4096), slots=1) as model:
        stream = model.stream([50], max_tokens=4000, temperature=1.0)
        threading.Timer(0.05, stream.cancel).start()
        began = time.monotonic()
        count = sum(1 for _ in stream)
        if stream.completion.finish_reason == "cancelled":
            assert count < 4000
        assert time.monotonic() - began < 30


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A ternary model written by `write_model`, with its tokenizer."""
    config = tiny_config()
    path = tmp_path_factory.mktemp("models")
    tokenizer_file = path / "source.json"
    TOKENIZER.save(str(tokenizer_file))
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(0, 0.05, shape).astype(np.float32) if len(shape) == 2 else
               np.ones(shape, dtype=np.float32) for name, shape in config.tensor_shapes().items()}
    write_model(path / "ternary", config, tensors, form="packed", tokenizer_file=tokenizer_file)
    return path / "ternary"


def test_a_written_directory_is_loaded_and_generates(directory):
    with load(directory, threads=1) as model:
        assert model.info.kernel == kernels()[0]
        assert model.info.head == "int8"
        assert model.context == 96
        completion = model.generate("def add", max_tokens=5, stop="\x00")
        assert completion.text == model.tokenizer.decode(completion.token_ids)
        assert model.infill("def add(a, b):", "return c", max_tokens=5).prompt_tokens > 10
    with load(directory, context=50, head="stored") as model:
        assert (model.context, model.info.head, model.info.threads) == (50, "stored", available_cores())


@pytest.mark.parametrize(("setting", "message"), [
    ({"kernel": "sse9"}, r"no kernel 'sse9'(.|\n)*scalar"),
    ({"head": "int3"}, r"no head 'int3'(.|\n)*int8, int4, f16, stored"),
    ({"threads": 0}, "threads is 0"), ({"slots": 0}, "slots is 0"), ({"context": 0}, "context is 0"),
    ({"context": 97}, "cannot be 97 tokens long"), ({"prefill_chunk": 0}, "prefill_chunk is 0")])
def test_settings_that_cannot_be_are_named_with_the_choices(directory, setting, message):
    with pytest.raises(TritwiseError, match=message):
        load(directory, **setting)


def test_running_a_model_imports_neither_torch_nor_transformers(directory):
    script = f"""
import sys
import tritwise
with tritwise.load({str(directory)!r}) as model:
    model.generate("def add", max_tokens=4)
import tritwise.evaluate, tritwise.measure.bench, tritwise.measure.inspection, tritwise.measure.machine
heavy = [name for name in ("torch", "transformers", "accelerate", "pyarrow", "matplotlib") if name in sys.modules]
print(heavy)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
