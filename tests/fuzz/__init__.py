"""Fuzzing of what reads models: `make fuzz`, or one target for as long as one likes:

    PYTHONPATH=tests:src python -m fuzz gguf --runs 1000000

`targets` says what is asked of an input, `seeds` what it begins with, `mutators` how it is changed, and `engine` hands
all of it to atheris, which keeps what reaches new code.
"""
