"""Reading and writing model directories. The only room that knows a file layout.

    directory = open_model(path)        # Hugging Face's config.json and safetensors, checked by name and reason
    write_model(out, config, tensors, form="packed")
"""

from tritwise.formats.chat_template import ChatTemplate, chat_template
from tritwise.formats.gguf_model import GGUFCodes, GGUFModel
from tritwise.formats.gguf_writer import write_gguf
from tritwise.formats.opening import latent, open_model
from tritwise.formats.packing import TernaryTensor, pack_rows, unpack_rows
from tritwise.formats.reader import FileTensor, ModelDirectory
from tritwise.formats.writer import write_model, write_quantised

__all__ = [
    "ChatTemplate", "FileTensor", "GGUFCodes", "GGUFModel", "ModelDirectory", "TernaryTensor", "chat_template",
    "latent", "open_model", "pack_rows", "unpack_rows", "write_gguf", "write_model", "write_quantised",
]
