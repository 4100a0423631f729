"""`tritwise verify`: whether two models that should be the same are."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from tritwise.cli.commands.perplexity import read_text
from tritwise.cli.output import Text, print_facts, print_json, print_table
from tritwise.common.errors import TritwiseError
from tritwise.evaluate import Tolerance, Verification
from tritwise.evaluate import verify as compare

# Rows of single tensors that are shown; --json has all.
_SHOWN = 20


def verify(a: Path, b: Path | None = None, /, *,
           peer: Annotated[Literal["transformers", "llama.cpp"] | None, Parameter(name="--with")] = None,
           text: Text | None = None, context: int = 512, threads: int | None = None, scale: float = 0.0,
           matrix: float = 0.03, divergence: float = 0.01, agreement: float = 0.95, json: bool = False) -> None:
    """Compare two models that should be the same; status 1 and a sentence when they differ.

    Parameters
    ----------
    a
        A model: a directory or a GGUF file.
    b
        The other one.
    peer
        Take B's predictions (A's, without B) from this program.
    text
        A UTF-8 text to predict; 256 fixed random token ids when not given.
    context
        Tokens of a window.
    threads
        Threads; the physical cores when not given.
    scale
        Allowed relative difference of a scale, if no named rounding.
    matrix
        The same of a matrix of floats. Codes and norms have none.
    divergence
        Allowed mean of KL(A || B), nats a token.
    agreement
        Least share of tokens with the same likeliest id.
    json
        Print one JSON object.
    """
    report = compare(a, b, text=None if text is None else read_text(text), peer=peer, context=context, threads=threads,
                     tolerance=Tolerance(scale, matrix, divergence, agreement))
    if json:
        print_json(report.to_json())
    else:
        _show(report)
    if not report.agrees:
        raise TritwiseError(f"the models are not the same: {report.first_difference}",
                            why="; ".join(report.differences[1:]))


def _show(report: Verification) -> None:
    other = report.b or report.a
    print_facts([("A", report.a), ("B", f"{other}, by {report.peer}" if report.peer else other)])
    if report.tensors:
        print()
        _show_tensors(report)
    found = report.predictions
    if found is not None:
        print()
        print_facts([("top token the same", f"{100 * found.agreement:.2f} % of {found.tokens:,} tokens"),
                     ("the same or as likely", f"{100 * found.close_agreement:.2f} %"),
                     ("KL(A || B), nats", f"mean {found.divergence:.3e}, largest {found.largest_divergence:.3e}"),
                     ("largest difference", f"{found.largest_difference:.3e} of two logits"),
                     ("perplexity", f"A {found.perplexity_a:.4f}, B {found.perplexity_b:.4f}")],
                    title=f"predictions for {report.sample}")
    print()
    print("the models agree" if report.agrees else "the models differ")
    for sentence in report.differences:
        print(f"  {sentence}")


def _show_tensors(report: Verification) -> None:
    groups: dict[tuple[str, str, bool], list] = {}
    for tensor in report.tensors:
        groups.setdefault((tensor.role, tensor.relation, tensor.codes_differ is not None), []).append(tensor)
    print_table(["tensors", "count", "codes that differ", "scales or values", "relative", "largest"],
                [[role, str(len(group)), f"{sum(t.codes_differ for t in group):,}" if quantised else "-", relation,
                  f"{max(t.relative_difference for t in group):.2e}", f"{max(t.largest_difference for t in group):.2e}"]
                 for (role, relation, quantised), group in groups.items()])
    wrong = [tensor for tensor in report.tensors if tensor.codes_differ]
    if wrong:
        print()
        print_table(["tensor", "codes that differ", "scale"],
                    [[t.name, f"{t.codes_differ:,}", t.relation] for t in wrong[:_SHOWN]])
        if len(wrong) > _SHOWN:
            print(f"... and {len(wrong) - _SHOWN} more")
