"""Decontamination: files that hold parts of test sets are found, reported and dropped (arXiv 2401.14196, section 2.3).

    items = load_test_sets([Path("HumanEval.jsonl.gz"), Path("gsm8k/test.jsonl")])
    sets = TestSets.build(items, ContaminationSettings())
    sets.find(text) -> [Hit(...), ...]                 empty for a clean file
    contamination_report(documents, sets)              how much of each set stands in a corpus, and where
"""

from tritwise.data.contamination.index import Hit, TestSets
from tritwise.data.contamination.report import SetContamination, contamination_report
from tritwise.data.contamination.sources import TestItem, files_of_sets, load_test_sets, read_test_set

__all__ = ["Hit", "SetContamination", "TestItem", "TestSets", "contamination_report", "files_of_sets",
           "load_test_sets", "read_test_set"]
