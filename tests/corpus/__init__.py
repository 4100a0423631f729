"""Files that must not be believed, each under a name that says what is wrong with it; always the same bytes.

    PYTHONPATH=tests:src python -m corpus OUT      # writes the GGUF files, for other readers too

`gguf_layout` writes the container by hand, `gguf_models` a small valid model with it, `gguf_malformed` spoils that
model in one way a file, and `directories` does the same to a Hugging Face directory.
"""
