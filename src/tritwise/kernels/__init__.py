"""Triton kernels for NVIDIA GPUs, each beside a twin in plain torch that says what it computes.

Importing this package needs torch and touches no GPU; the modules with kernels in them also need triton.
"""
