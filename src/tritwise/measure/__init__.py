"""Speed, memory, what a model directory holds, and the report. Each is a module of its own:

`bench` (decode and prefill speed), `memory` (peak resident memory), `machine` (processor, kernels, bandwidth,
versions), `inspection` (configuration, bytes, codes and scales of every tensor), `shapes` (models of random weights),
`report` (the page that a run ends with).
"""
