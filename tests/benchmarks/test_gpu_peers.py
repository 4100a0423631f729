"""Others' products in the GPU benchmark: the layout of microsoft/BitNet's kernel, and what is said of each peer."""

import ctypes
from types import SimpleNamespace

import linear
import ml_dtypes
import numpy as np
import peers
import pytest
import torch
from peers import Gemlite, Microsoft, NotMeasuredError, open_peers, pack_for_microsoft

from tritwise.kernels import quantise

N, K = 32, 256


def kernel(x, packed, y, divisor, scales, m, n, k, _):
    """gpu/bitnet_kernels/bitnet_kernels.h by its threads, 8 x 16 in a block; on addresses, as the library is called."""
    codes = np.frombuffer(ctypes.string_at(x, k), np.int8)
    data = ctypes.string_at(packed, n * k // 4)
    values = np.zeros(n, np.float32)
    for block in range(n // 16):
        for row in range(16):
            total = 0
            for column in range(8):
                for step in range(k // 128):
                    at = (block * 16 * k // 4 + step * 512 + (column >> 1) * 128 + (row >> 3) * 64 + (column & 1) * 32
                          + (row & 7) * 4)
                    word = int.from_bytes(data[at:at + 4], "little")
                    for i in range(4):
                        for j in range(4):
                            code = (word >> (2 * i) >> (8 * j)) % 4 - 2
                            total += code * int(codes[step * 128 + column * 16 + 4 * i + j])
            values[block * 16 + row] = total
    scale = np.frombuffer(ctypes.string_at(scales, 2), ml_dtypes.bfloat16).astype(np.float32)
    divided = values / np.frombuffer(ctypes.string_at(divisor, 2), ml_dtypes.bfloat16).astype(np.float32) * scale
    ctypes.memmove(y, divided.astype(ml_dtypes.bfloat16).tobytes(), 2 * n)


@pytest.fixture
def microsoft(monkeypatch) -> Microsoft:
    peer = Microsoft.__new__(Microsoft)
    peer._run = kernel
    monkeypatch.setitem(peers.MICROSOFT_SHAPES, (N, K), 1)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=0))
    return peer


class Other:
    """A peer that multiplies the codes it was given; `off` is added to what comes out."""

    name, from_floats = "other", True

    def __init__(self, off: float = 0.0) -> None:
        self.off = off

    def weights(self, codes, scale):
        return codes.double() * scale

    def call(self, weights, x, floats):
        return lambda: floats.double() @ weights.T + self.off


def timed(peer, tokens: int, n: int = N, k: int = K) -> dict | str:
    torch.manual_seed(0)
    hidden = torch.randn(tokens, k)
    prepared = linear.prepare_peers([peer], n, k, 2, torch.device("cpu"))
    clock = linear.Clock(torch.device("cpu"), quick=True)
    (found,) = linear.timed_peers(clock, prepared, quantise(hidden), hidden, {True: 0.5, False: 0.25}).values()
    return found


def test_microsofts_kernel_reads_the_codes_that_were_packed_for_it(microsoft):
    found = timed(microsoft, 1)
    assert found["difference"] < 0.01  # bfloat16
    assert found["over_ours"] == pytest.approx(found["us"] / 1e6 / 0.25)


def test_microsofts_layout_keeps_every_code_in_two_bits():
    codes = torch.randint(-1, 2, (16, 128), dtype=torch.int8)
    packed = pack_for_microsoft(codes)
    assert packed.shape == (16 * 128 // 4,)
    fields = torch.stack([packed >> shift & 3 for shift in (0, 2, 4, 6)])
    assert torch.equal(fields.flatten().bincount(minlength=4)[1:], (codes.long().flatten() + 1).bincount(minlength=3))


def test_what_a_peer_does_not_have_is_said_in_its_place(microsoft):
    assert timed(microsoft, 2) == "not measured: its kernel computes one token"
    assert timed(microsoft, 1, n=48) == "not measured: its kernel does not have this shape"
    assert timed(Other(off=50.0), 3).startswith("not measured: its result is ")


def test_a_peer_that_takes_floats_is_compared_with_quantisation_and_product():
    found = timed(Other(), 3)
    assert found["difference"] < 0.02  # it does not round its activations
    assert found["over_ours"] == pytest.approx(found["us"] / 1e6 / 0.5)


def test_peers_that_are_not_there_are_named_with_the_reason(tmp_path):
    found, missing = open_peers(torch.device("cpu"), None)
    assert (found, missing) == ([], {"gemlite": "there is no GPU", "microsoft": "there is no GPU"})
    with pytest.raises(NotMeasuredError, match="no --microsoft LIBRARY"):
        Microsoft(None)
    (tmp_path / "libbitnet.so").write_bytes(b"no library")
    with pytest.raises(NotMeasuredError, match="is not its library"):
        Microsoft(tmp_path / "libbitnet.so")
    with pytest.raises(NotMeasuredError, match="gemlite cannot be imported"):
        Gemlite(torch.device("cpu"))
