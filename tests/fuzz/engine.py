"""One target under atheris, in a process of its own: `python -m fuzz.engine TARGET FOLDER [libFuzzer's flags]`.

FOLDER keeps the inputs that reached new code, for the next time. Coverage is that of our Python: of the libraries below
(safetensors, tokenizers) only the behaviour is watched.
"""

import random
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tritwise"]):
    from fuzz import mutators, seeds, targets


def main(target: str, folder: Path, flags: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    valid = seeds.seeds(target)
    for number, seed in enumerate(valid):
        (folder / f"seed-{number}").write_bytes(seed)
    accepted = [0, 0]

    def test(data: bytes) -> None:
        accepted[targets.check(target, data)] += 1
        if sum(accepted) % 1000 == 0:
            print(f"accepted {accepted[1]}, refused {accepted[0]}", file=sys.stderr, flush=True)

    def mutated(data: bytes, most: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.1:
            return atheris.Mutate(data, most)
        # Most of what reached new code is refused early, and so is what is made of it.
        return mutators.mutate(target, rng.choice(valid) if rng.random() < 0.4 else data, rng)[:most]

    def crossed(one: bytes, other: bytes, most: int, seed: int) -> bytes:
        return mutators.cross(target, one, other, random.Random(seed))[:most]

    # Inputs are not made smaller: what is valid as a whole is worth more to a reader that checks everything.
    settings = [sys.argv[0], str(folder), "-max_len=1000000", "-timeout=60", "-reduce_inputs=0", *flags]
    atheris.Setup(settings, test, custom_mutator=mutated, custom_crossover=crossed)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
