"""From repositories to memory-mapped token shards: sources, filters, import order, tokenizer, FIM, shards."""

from tritwise.data.baseline import xz_bits_per_byte
from tritwise.data.build import BuildReport, build
from tritwise.data.documents import Document, document_text, load_documents, path_comment
from tritwise.data.encoder import Encoder
from tritwise.data.megatron import export_megatron
from tritwise.data.shard_parts import TokenStream, open_shards
from tritwise.data.shards import TokenShard, write_shard
from tritwise.data.tokenizer import load_tokenizer, train_tokenizer

__all__ = [
    "BuildReport", "Document", "Encoder", "TokenShard", "TokenStream", "build", "document_text", "export_megatron",
    "load_documents", "load_tokenizer", "open_shards",
    "path_comment", "train_tokenizer", "write_shard", "xz_bits_per_byte",
]
