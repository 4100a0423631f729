"""`tritwise doctor`: what this machine is and what runs on it."""

from tritwise.cli.output import format_bytes, print_facts, print_json
from tritwise.measure.machine import machine_facts


def doctor(*, json: bool = False) -> None:
    """Show processor, kernels, measured memory bandwidth and versions; made for pasting into a bug report.

    Parameters
    ----------
    json
        Print one JSON object.
    """
    facts = machine_facts()
    if json:
        print_json(facts)
        return
    bandwidth = ", ".join(f"{value / 1e9:.1f} GB/s ({threads} {'thread' if threads == '1' else 'threads'})"
                          for threads, value in facts["bandwidth_bytes_per_second"].items())
    print_facts([
        ("processor", facts["processor"]),
        ("features", ", ".join(facts["features"])),
        ("cores", f"{facts['available_cores']} available, {facts['logical_cores']} logical"),
        ("memory", format_bytes(facts["memory_bytes"])),
        ("read bandwidth", bandwidth),
        ("kernels", ", ".join(facts["kernels"]) + f" (used: {facts['kernel']})"),
        ("system", facts["system"]),
        *[(name, version) for name, version in facts["versions"].items()],
    ])
