"""The report: one page that needs no network, equal bytes for equal data, and nothing unescaped."""

import hashlib
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tritwise.measure.plots import MAX_POINTS, binned, smoothed
from tritwise.measure.report import layer_counts, training_curve, write_report
from tritwise.measure.report_page import number, page, size

HOSTILE = "<script>alert('1')</script> & \"x\""


def model(name, linear_type, score):
    steps = list(range(1, 101))
    return {
        "name": name, "linear_type": linear_type, "config": {"hidden_size": 64},
        "parameters": {"block": 80_000, "embedding": 65_000, "norm": 700, "total": 145_700},
        "training": {
            "steps": 100, "tokens": 204_800, "seconds": 12.5, "step_seconds": 10.0, "final_loss": 2.5,
            "bits_per_byte": score + 1e-4,
            "curve": {"step": steps, "tokens": [2048 * s for s in steps], "loss": [7 - 0.04 * s for s in steps],
                      "learning_rate": [1e-3 * (1 - s / 101) for s in steps]}},
        "files": {"bytes": 213_000},
        "bench": {"decode_tokens_per_second": 1084.2, "prefill_tokens_per_second": 58275.0, "decode_tokens": 128,
                  "prefill_tokens": 512, "weight_bytes_per_token": 97_536, "peak_rss_bytes": 57_700_000,
                  "load_seconds": 0.0064, "threads": 2, "kernel": "avx2"},
        "held_out": {"bits_per_byte": score, "perplexity": 33.25, "context": 128, "stride": 64},
        "layers": [{"minus": 340, "zero": 310, "plus": 350}] * 3 if linear_type == "ternary" else [],
        "completions": [
            {"kind": "completion", "source": HOSTILE, "prefix": f"def f():\n    {HOSTILE}\n",
             "text": f"    {HOSTILE}\n", "suffix": "", "original": HOSTILE, "tokens": 4, "tokens_per_second": 1000.0,
             "seconds_to_first_token": 0.0021},
            {"kind": "infill", "source": "a.py: g", "prefix": "a = ", "text": "1", "suffix": "\n", "original": "2",
             "tokens": 1, "tokens_per_second": None, "seconds_to_first_token": 0.0021}],
    }


@pytest.fixture
def report():
    return {
        "name": "example", "key": "k" * 64,
        "models": [model("ternary", "ternary", 1.8123), model("dense", "dense", 1.79)],
        "held_out": {"bytes": 180_016, "documents": 3, "repositories": ["logging"], "xz_bits_per_byte": 2.2401},
        "data": {"source": HOSTILE, "tokenizer": "byte-level BPE"},
        "machine": {"cpu": "AMD EPYC", "cores": "2"},
        "stages": [{"name": "data", "key": "ab" * 32, "seconds": 6.0},
                   {"name": "run", "key": "cd" * 32, "seconds": 61.0}],
        "repeat": {"command": "tritwise run 'a <b>.toml'", "versions": {"python": "3.11.7"},
                   "hashes": {"a.toml": "f" * 64}},
    }


class Page(HTMLParser):
    """Collects what a page loads and checks that every element is closed."""

    VOID = frozenset({"meta", "br", "link", "img", "path", "use", "rect"})

    def __init__(self, text):
        super().__init__()
        self.open, self.attributes, self.tags, self.text = [], [], set(), []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_loads_nothing_and_closes_every_element(report):
    html = page(report)
    parsed = Page(html)
    assert parsed.tags.isdisjoint({"script", "link", "img", "iframe", "object", "embed", "base", "form"})
    for _, name, value in parsed.attributes:
        if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
            assert value.startswith("#"), value
    assert "@import" not in html
    # Besides "#id" inside its own drawings, the style sheet and the drawings point nowhere.
    assert set(re.findall(r"url\((?!#)[^)]*\)", html)) == set()
    assert "default-src 'none'" in html


def test_text_from_outside_is_escaped_and_still_readable(report):
    html = page(report)
    assert "<script" not in html
    assert "".join(Page(html).text).count("alert('1')") >= 6
    assert "tritwise run 'a <b>.toml'" in "".join(Page(html).text)


def test_the_headline_numbers_stand_on_the_page(report):
    text = " ".join("".join(Page(page(report)).text).split())
    for expected in ("1.8123", "1.7900", "2.2401", "1.8124", "213 kB", "57.7 MB", "1\u2009084", "58\u2009275", "33.25",
                     "avx2", "34.0 %", "31.0 %", "35.0 %", "1:07", "tritwise run", "f" * 64, "3.11.7", "Completion",
                     "Fill in the middle", "too short to time"):
        assert " ".join(expected.split()) in text, expected


def test_equal_data_gives_equal_bytes(report, tmp_path):
    written = []
    for name in ("a", "b"):
        write_report(report, tmp_path / name)
        written.append([(tmp_path / name / file).read_bytes() for file in ("report.html", "report.json")])
    assert written[0] == written[1]


def test_the_json_holds_the_data_and_the_pages_hash(report, tmp_path):
    write_report(report, tmp_path)
    data = json.loads((tmp_path / "report.json").read_text())
    assert data.pop("html_sha256") == hashlib.sha256((tmp_path / "report.html").read_bytes()).hexdigest()
    assert data == report


def test_the_drawings_are_xml_that_takes_the_pages_colours_and_shares_no_id(report):
    html = page(report)
    drawings = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert len(drawings) == 2
    for drawing in drawings:
        root = ElementTree.fromstring(drawing)
        assert "width" not in root.attrib
        assert root.attrib["viewBox"]
        assert re.findall(r"#0104|#0103|#01020", drawing) == []
        assert "currentColor" in drawing
    ids = re.findall(r'\bid="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    used = set(re.findall(r"url\(#([^)]+)\)", html)) | set(re.findall(r'xlink:href="#([^"]+)"', html))
    assert used
    assert used <= set(ids)


def test_a_report_of_one_dense_model_has_no_weights_section(report):
    report["models"] = report["models"][1:]
    text = "".join(Page(page(report)).text)
    assert "Weights" not in text
    assert "Completions" in text


@pytest.mark.parametrize(("value", "text"), [
    (1.8123, "1.81"), (12.345, "12.3"), (0.0213, "0.0213"), (0.00001234, "1.23e-05"), (999.6, "1\u2009000"), (7, "7"),
    (0, "0"), (1234567, "1\u2009234\u2009567"), (128, "128"),
])
def test_numbers_keep_three_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(("value", "text"), [(213_000, "213 kB"), (57_700_000, "57.7 MB"), (1.5e9, "1.50 GB"),
                                             (999, "999 bytes"), (1000, "1.00 kB")])
def test_sizes_keep_three_digits(value, text):
    assert size(value) == text


def test_counts_of_a_layer_are_summed_over_its_linears_in_order_of_depth():
    one = {"minus": 1, "zero": 2, "plus": 3}
    names = ["model.layers.10.mlp.up_proj.weight", "model.layers.2.mlp.up_proj.weight",
             "model.layers.2.self_attn.q_proj.weight"]
    assert layer_counts(dict.fromkeys(names, one)) == [{"minus": 2, "zero": 4, "plus": 6}, one]


def test_a_step_logged_twice_counts_once_with_its_later_line():
    def line(step, loss):
        return {"step": step, "tokens": 10 * step, "loss": loss, "learning_rate": 0.1, "grad_norm": 1.0}

    curve = training_curve([line(1, 5.0), line(2, 4.0), line(3, 3.5), line(2, 4.5), line(3, 3.0)])
    assert curve == {"step": [1, 2, 3], "tokens": [10, 20, 30], "loss": [5.0, 4.5, 3.0], "learning_rate": [0.1] * 3}


def test_long_curves_are_drawn_by_means_of_equal_runs():
    x = list(range(100_000))
    means, _ = binned(x, x)
    assert len(means) <= MAX_POINTS
    assert means[0] == sum(range(167)) / 167
    assert binned([1, 2, 3], [4, 5, 6]) == ([1, 2, 3], [4, 5, 6])


def test_smoothing_is_a_centred_mean():
    assert smoothed([1, 2, 3, 4, 5], radius=1) == [1.5, 2, 3, 4, 4.5]
    assert smoothed([3], radius=9) == [3]
