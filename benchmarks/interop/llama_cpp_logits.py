"""Run by the interpreter that has llama-cpp-python: logits of windows of token ids.

    python llama_cpp_logits.py model.gguf ids.npy logits.npy      # int32 [windows, length] -> float32 [.., vocabulary]

Each window is decoded from an empty cache, in one batch. `--plain` behind them: a float32 cache and no flash attention,
which rounds queries to float16; what is left of llama.cpp's own arithmetic then are the products.
"""

import ctypes
import sys

import llama_cpp
import numpy as np

_QUIET = llama_cpp.llama_log_callback(lambda level, text, data: None)  # the library keeps a pointer only


def main(path: str, ids_file: str, out: str, plain: str = "") -> None:
    llama_cpp.llama_log_set(_QUIET, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    windows = np.load(ids_file)
    model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
    if not model:
        sys.exit(f"llama.cpp does not open {path}")
    length = windows.shape[1]
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = length
    params.n_threads = params.n_threads_batch = 2
    if plain:
        params.type_k = params.type_v = llama_cpp.GGML_TYPE_F32
        params.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama_cpp.llama_init_from_model(model, params)
    vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    batch = llama_cpp.llama_batch_init(length, 0, 1)
    logits = np.lib.format.open_memmap(out, mode="w+", dtype=np.float32, shape=(*windows.shape, vocabulary))
    for number, window in enumerate(windows):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
        batch.n_tokens = length
        for at, token in enumerate(window):
            batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.seq_id[at][0] = int(token), at, 1, 0
            batch.logits[at] = True
        if llama_cpp.llama_decode(context, batch):
            sys.exit("llama_decode failed")
        flat = np.ctypeslib.as_array(llama_cpp.llama_get_logits(context), (length, vocabulary))
        logits[number] = flat
    logits.flush()
    print(llama_cpp.__version__)


if __name__ == "__main__":
    main(*sys.argv[1:])
