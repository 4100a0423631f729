import resource
import sys

import pytest
from llama_bench import batched_speed, bench_speed, run
from works import RefusedError

BENCH = """load_backend: ...
[
  {
    "n_prompt": 0,
    "n_gen": 64,
    "avg_ts": 26.5,
    "samples_ts": [ 26.5 ]
  }
]
"""
BATCHED = """main: n_kv_max = 3072, n_batch = 2048, n_threads = 2

|    PP |     TG |    B |   N_KV |   T_PP s | S_PP t/s |   T_TG s | S_TG t/s |      T s |    S t/s |
|-------|--------|------|--------|----------|----------|----------|----------|----------|----------|
|    64 |     32 |   32 |   3072 |   18.285 |   112.00 |   17.655 |    58.00 |   35.940 |    85.48 |

llama_print_timings: load time = 1.0 | rest
"""


def test_the_speed_of_llama_bench_is_found_between_other_lines():
    assert bench_speed(BENCH) == 26.5


def test_the_speed_of_batched_bench_is_the_decode_column():
    assert batched_speed(BATCHED) == 58.0


@pytest.mark.parametrize("parse", [bench_speed, batched_speed])
@pytest.mark.parametrize("output", ["", "error: unable to load model", "[\n]", "| PP | S_TG t/s |\n"])
def test_output_without_a_speed_is_a_refusal(parse, output):
    with pytest.raises(RefusedError, match="printed no"):
        parse(output)


def test_a_process_that_fails_is_a_refusal_with_its_last_words():
    script = "import sys; print('assert failed: 64', file=sys.stderr); sys.exit(3)"
    with pytest.raises(RefusedError, match="ended with status 3: assert failed: 64"):
        run([sys.executable, "-c", script])


def test_a_process_is_measured_with_the_memory_it_touched():
    finished = run([sys.executable, "-c", "b = bytearray(1 << 26); b[::4096] = b'x' * (1 << 14); print('done')"])
    assert finished.output.startswith("done")
    # A process counts what its parent has until the program is started, so a large parent shows.
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert 1 << 26 < finished.peak_rss_bytes < max(1 << 29, own + (1 << 26))
    assert finished.seconds > 0
