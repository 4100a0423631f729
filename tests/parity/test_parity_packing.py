"""Our row stripes are transformers' `pack_weights` and `unpack_weights`, byte for byte."""

import numpy as np
import pytest
import torch
from transformers.integrations.bitnet import pack_weights, unpack_weights

from tritwise.formats import pack_rows, unpack_rows

SHAPES = [(4, 1), (8, 5), (64, 33), (5460, 8), (1, 3), (2, 7), (3, 2), (5, 4), (6, 6), (7, 9), (21, 10), (5462, 4)]


def random_codes(shape):
    return np.random.default_rng(sum(shape)).integers(-1, 2, shape).astype(np.int8)


@pytest.mark.parametrize("shape", SHAPES)
def test_packing_gives_the_bytes_of_pack_weights(shape):
    codes = random_codes(shape)
    assert pack_rows(codes).tobytes() == pack_weights(torch.from_numpy(codes.copy())).numpy().tobytes()


@pytest.mark.parametrize("shape", SHAPES)
def test_unpacking_gives_the_rows_of_unpack_weights(shape):
    packed = pack_weights(torch.from_numpy(random_codes(shape)))
    theirs = unpack_weights(packed, torch.float32)[:shape[0]].numpy()
    assert np.array_equal(unpack_rows(packed.numpy(), shape[0]), theirs)


def test_transformers_too_cannot_join_packed_tensors():
    q, k = torch.ones(4, 3), -torch.ones(4, 3)
    joined = torch.cat([pack_weights(q.clone()), pack_weights(k.clone())])
    assert not torch.equal(unpack_weights(joined, torch.float32), torch.cat([q, k]))
