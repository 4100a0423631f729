"""IBM's resolver and order on one repository; runs in an environment of its own, started by resolver_peer.py.

    python ibm_resolver.py CHECKOUT FILES.json     FILES: [{"title": path, "contents", "ext", "language", "repo_name"}]

Prints JSON: processor seconds of the graph and of the order, the edges [dependent, dependency], the paths in order, and
how many files its parser could not read. What is called is what `sort_sem` of data-prep-kit's repo_level_order calls.
"""

import json
import logging
import sys
import time
import types
import warnings
from pathlib import Path

PACKAGE = "transforms/code/repo_level_order/dpk_repo_level_order"


class Unparsed(logging.Handler):
    """The number in its log line "Unparsed files - N out of total M files"."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        words = record.getMessage().split()
        if words[:2] == ["Unparsed", "files"]:
            self.count = int(words[3])


def main() -> None:
    # The package's own __init__ starts with Ray, of which the resolver uses nothing.
    package = types.ModuleType("dpk_repo_level_order")
    package.__path__ = [str(Path(sys.argv[1], PACKAGE))]
    sys.modules["dpk_repo_level_order"] = package
    warnings.simplefilter("ignore")
    import pandas
    from dpk_repo_level_order.internal.sorting.semantic_ordering.build_dep_graph import build_edges
    from dpk_repo_level_order.internal.sorting.semantic_ordering.topological_sort import topological_sort_on_df

    logging.getLogger().setLevel(logging.CRITICAL)
    log, unparsed = logging.Logger("resolver", logging.INFO), Unparsed()
    log.addHandler(unparsed)
    files = pandas.DataFrame(json.loads(Path(sys.argv[2]).read_text()))
    began = time.process_time()
    graph = build_edges(files, log, "title", "language")
    graph_seconds = time.process_time() - began
    edges = sorted((dependent, dependency) for dependency, dependent in graph.edges)  # the order takes edges out
    began = time.process_time()
    ordered = topological_sort_on_df(graph, files, log, "title")
    json.dump({"graph_seconds": graph_seconds, "order_seconds": time.process_time() - began, "edges": edges,
               "order": list(ordered["title"]), "unparsed": unparsed.count}, sys.stdout)


if __name__ == "__main__":
    main()
