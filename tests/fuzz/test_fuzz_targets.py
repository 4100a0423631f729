"""The fuzz targets without atheris: their seeds are accepted, and a few hundred mutations of each are no finding."""

import random

import pytest
from corpus.gguf_layout import decode, encode
from corpus.gguf_models import model

from fuzz.mutators import cross, mutate
from fuzz.seeds import seeds
from fuzz.targets import TARGETS, check, join, split


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_is_accepted(target):
    for seed in seeds(target):
        assert check(target, seed)


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_of_the_seeds_are_answered_or_refused(target):
    rng = random.Random(0)
    begin, accepted = seeds(target), []
    for _ in range(150):
        data = mutate(target, rng.choice(begin), rng)
        if rng.random() < 0.2:
            data = cross(target, data, rng.choice(begin), rng)
        accepted.append(check(target, data))
    assert not all(accepted)


def test_a_container_is_told_apart_into_what_it_was_made_of():
    for kind in ("IQ2_BN", "TQ2_0"):
        content = encode(model(kind))
        assert encode(decode(content)) == content


def test_files_of_a_directory_are_told_apart():
    parts = {"config.json": b"{}", "model.safetensors": b"abc"}
    assert split(join(parts)) == parts
