"""The output head: its forms against numpy, every kernel against every other, and the search for the most likely id."""

import numpy as np
import pytest
from native_models import config, file_model, ints, load, random_weights, run

from tritwise import _native
from tritwise.ternary import absmax

KERNELS = _native.kernels()
TOKENS = np.random.default_rng(5).integers(0, 70, 19).astype(np.int32)


def head_model(matrix: np.ndarray, *, head: str = "int8", norm: np.ndarray | None = None,
               **settings) -> "_native.Model":
    """A tied model whose embedding, hence head, is `matrix` float32 [vocab, hidden]; `norm`: the last one's weight."""
    vocab, hidden = matrix.shape
    c = config(vocab_size=vocab, hidden_size=hidden, num_attention_heads=2, num_key_value_heads=1,
               head_dim=hidden // 2, num_hidden_layers=1)
    weights = random_weights(c) | {"model.embed_tokens.weight": matrix.astype(np.float32)}
    if norm is not None:
        weights["model.norm.weight"] = norm
    return load(c, weights, head=head, **settings)


def matrix_of(kind: str, rng: np.random.Generator, vocab: int, hidden: int) -> np.ndarray:
    matrix = rng.normal(size=(vocab, hidden)).astype(np.float32)
    if kind == "equal rows":
        matrix[:] = matrix[rng.integers(0, 3, vocab)]
    elif kind == "near ties":
        matrix[:] = matrix[0] + rng.normal(size=(vocab, hidden)) * 1e-2
    elif kind == "outliers":
        matrix[np.arange(vocab), rng.integers(0, hidden, vocab)] = 30.0
    elif kind == "two values":
        matrix = np.sign(matrix)
    elif kind == "zeros":
        matrix[:] = 0
    elif kind == "mixed sizes":
        matrix *= np.exp(rng.normal(size=(vocab, 1)) * 2)
    return matrix


@pytest.mark.parametrize("hidden", [48, 100, 128])
@pytest.mark.parametrize("kind", ["random", "equal rows", "near ties", "outliers", "two values", "zeros",
                                  "mixed sizes"])
def test_the_search_finds_the_id_that_all_logits_give(kind, hidden):
    rng = np.random.default_rng(hidden)
    for vocab in (33, 500, 1100):
        matrix = matrix_of(kind, rng, vocab, hidden)
        tokens = rng.integers(0, vocab, 40).astype(np.int32)
        n, slots, positions = len(tokens), np.zeros(40, np.int32), np.arange(40, dtype=np.int32)
        whole = head_model(matrix, head_pass="one")
        logits, best = whole.forward(tokens, slots, positions, positions, positions)
        np.testing.assert_array_equal(best, logits.argmax(axis=1))
        assert whole.head_search["tokens"] == 0
        for kernel in KERNELS:
            searching = head_model(matrix, kernel=kernel, threads=2)
            for count in (1, 2, 5, n):  # tokens that are searched together
                found = [searching.forward(tokens[i:i + count], slots[i:i + count], positions[i:i + count], ints(),
                                           np.arange(len(tokens[i:i + count]), dtype=np.int32))[1]
                         for i in range(0, n, count)]
                np.testing.assert_array_equal(np.concatenate(found), best)
            assert searching.head_search["tokens"] == 4 * n


def test_the_search_finds_the_id_when_one_channel_of_the_hidden_state_is_far_larger_than_the_others():
    rng = np.random.default_rng(8)
    matrix = rng.normal(size=(700, 128)).astype(np.float32)
    matrix[:, 5] *= 300  # the others then fill the lower plane of the activations alone
    tokens, positions = rng.integers(0, 700, 40).astype(np.int32), np.arange(40, dtype=np.int32)
    call = tokens, np.zeros(40, np.int32), positions, ints(), positions
    expected = head_model(matrix, head_pass="one").forward(*call)[1]
    model = head_model(matrix)
    np.testing.assert_array_equal(model.forward(*call)[1], expected)
    assert model.head_search["tokens"] == 40


def test_a_token_whose_margins_do_not_hold_gets_all_logits():
    # Rows of codes 0 to 12, whose high nibbles are equal, beside one of 127 that no hidden state shows; and hidden
    # states along the rows, because the embedding is tied.
    rng = np.random.default_rng(9)
    matrix = rng.uniform(0, 400, (70, 1024)).astype(np.float32)  # beside which the layer adds nothing
    matrix[:, 3] = 4000
    norm = np.ones(1024, np.float32)
    norm[3] = 0
    tokens, positions = np.arange(40, dtype=np.int32) + 30, np.arange(40, dtype=np.int32)
    call = tokens, np.zeros(40, np.int32), positions, ints(), positions
    expected = head_model(matrix, head_pass="one", norm=norm).forward(*call)[1]
    for kernel in KERNELS:
        model = head_model(matrix, kernel=kernel, norm=norm)
        np.testing.assert_array_equal(model.forward(*call)[1], expected)
        assert model.head_search["largest_error"] > 8


def test_the_search_computes_few_rows_exactly_and_says_so():
    rng = np.random.default_rng(2)
    model = head_model(rng.normal(size=(4000, 256)).astype(np.float32))
    tokens = rng.integers(0, 4000, 60).astype(np.int32)
    positions = np.arange(60, dtype=np.int32)
    model.forward(tokens, np.zeros(60, np.int32), positions, ints(), positions)
    seen = model.head_search
    assert seen["tokens"] == 60
    assert 60 <= seen["groups"] <= seen["candidates"] < 60 * 4000 / 10
    assert 0 < seen["largest_error"] < 8


def test_only_the_high_plane_counts_as_read_for_the_most_likely_id():
    matrix = np.random.default_rng(0).normal(size=(1024, 256)).astype(np.float32)
    two, one = head_model(matrix), head_model(matrix, head_pass="one")
    assert two.weight_bytes == one.weight_bytes
    assert one.weight_bytes_per_best == one.weight_bytes_per_token == two.weight_bytes_per_token
    assert one.weight_bytes_per_best - two.weight_bytes_per_best == 1024 * 256 // 2


def implied_weights(head: str, matrix: np.ndarray) -> np.ndarray:
    """The matrix by which a head multiplies, from more hidden states than dimensions."""
    model = head_model(matrix, head=head, context=400)
    trace = model.trace(np.random.default_rng(1).integers(0, len(matrix), 400).astype(np.int32))
    return np.linalg.lstsq(trace["norm"].astype(np.float64), trace["logits"].astype(np.float64), rcond=None)[0].T


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_8_bit_head_is_the_integer_product_of_rounded_rows_and_15_bit_activations(kernel):
    matrix = np.random.default_rng(3).normal(size=(90, 100)).astype(np.float32)
    trace = head_model(matrix, kernel=kernel).trace(TOKENS)
    top = np.abs(trace["norm"]).max(axis=1, keepdims=True)
    x = np.round(trace["norm"] * (np.float32(127 * 128) / top)).astype(np.int64)
    codes, scales = zip(*[absmax(row[None]) for row in matrix], strict=True)
    product = x @ np.concatenate(codes).astype(np.int64).T
    expected = product * (top.astype(np.float64) / (127 * 128)) * np.concatenate(scales).astype(np.float64).reshape(-1)
    # Two float scales, their product, the conversion of the sum and the last product: each rounds once by 2^-24.
    np.testing.assert_allclose(trace["logits"], expected, rtol=5 * 2**-24)


def test_the_half_precision_head_multiplies_by_rounded_weights():
    matrix = np.random.default_rng(3).normal(size=(90, 64)).astype(np.float32)
    np.testing.assert_allclose(implied_weights("f16", matrix), matrix.astype(np.float16), atol=1e-5)


@pytest.mark.parametrize("hidden", [64, 80])
def test_the_4_bit_head_is_closer_than_plain_rounding_with_the_largest_value(hidden):
    matrix = np.random.default_rng(4).standard_t(4, size=(90, hidden)).astype(np.float32)
    found = implied_weights("int4", matrix)
    for begin in range(0, hidden, 32):
        chunk, ours = matrix[:, begin:begin + 32], found[:, begin:begin + 32]
        scale = np.abs(chunk).max(axis=1, keepdims=True) / 7
        plain = np.clip(np.round(chunk / scale), -8, 7) * scale
        error, plain_error = ((chunk - ours) ** 2).sum(axis=1), ((chunk - plain) ** 2).sum(axis=1)
        assert error.sum() < 0.9 * plain_error.sum()


def test_the_4_bit_head_holds_four_and_a_half_bits_a_weight():
    matrix = np.ones((1024, 256), np.float32)
    stored, chunks = head_model(matrix, head="stored"), head_model(matrix, head="int4")
    assert chunks.weight_bytes_per_token == stored.weight_bytes_per_token - 1024 * 256 * (32 - 4.5) / 8


@pytest.mark.parametrize("head", ["stored", "f16", "int8", "int4"])
def test_every_kernel_thread_count_and_batch_gives_equal_bits(head):
    matrix = matrix_of("outliers", np.random.default_rng(6), 77, 80)
    expected = run(head_model(matrix, head=head, kernel="scalar"), TOKENS)
    for kernel in KERNELS:
        for chunk in (1, 2, 3, 4, 5, 6, 7, 13, 19):
            found = run(head_model(matrix, head=head, kernel=kernel, threads=2), TOKENS, chunk=chunk)
            assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("head", ["f16", "int4"])
def test_a_head_beyond_half_precision_is_refused(head):
    with pytest.raises(ValueError, match=f"beyond the range of a head in {head}"):
        head_model(np.full((40, 64), 1e7, np.float32), head=head)


@pytest.mark.parametrize("head", ["stored", "f16", "int8", "int4"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_weights_from_a_file_give_the_bits_of_weights_from_arrays(tmp_path, dtype, head):
    c = config(hidden_size=64, head_dim=16, tie_word_embeddings=dtype == "float16")
    weights = random_weights(c)
    from_arrays = load(c, weights, dtype=dtype, head=head)
    from_file = file_model(tmp_path / "weights", c, weights, dtype=dtype, head=head, threads=2)
    assert run(from_file, TOKENS).tobytes() == run(from_arrays, TOKENS).tobytes()
    if head != "stored" or dtype != "float16":  # the embedding stays in the file
        assert from_file.weight_bytes < from_arrays.weight_bytes


def test_what_cannot_be_in_a_file_is_refused_by_name(tmp_path):
    c = config()
    for name, change, message in (
        ("model.embed_tokens.weight", lambda w: w[3].__setitem__(5, np.nan), "NaN or infinite"),
        ("model.norm.weight", lambda w: w.__setitem__(0, np.inf), "NaN or infinite"),
        ("model.layers.0.mlp.up_proj.weight", lambda w: w[0].__setitem__((1, 2), 2), "a 2-bit field holds 3"),
    ):
        weights = random_weights(c)
        change(weights[name])
        with pytest.raises(ValueError, match=f"{name}.*{message}"):
            file_model(tmp_path / "weights", c, weights)
    with pytest.raises(ValueError, match="it holds the code 0, but linear_type is binary"):
        file_model(tmp_path / "weights", c, random_weights(c), binary=True)
    binary = config(linear_type="binary")
    file_model(tmp_path / "weights", binary, random_weights(binary), binary=True)


def test_a_file_that_is_cut_short_is_an_error_at_loading_and_later(tmp_path):
    c = config()
    path = tmp_path / "weights"
    with pytest.raises(ValueError, match="its file ended before its last byte"):
        file_model(path, c, random_weights(c), cut=100)
    model = file_model(path, c, random_weights(c))
    before = run(model, ints(1, 69))
    path.write_bytes(path.read_bytes()[:48 * 4 * 30])  # the embedding stands first
    with pytest.raises(RuntimeError, match=r"token 69 of .* cannot be read"):
        run(model, ints(69))
    assert run(model, ints(1)).tobytes() == before[:1].tobytes()
