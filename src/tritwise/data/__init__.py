"""From repositories to memory-mapped token shards: sources, filters, import order, tokenizer, FIM, shards."""

from tritwise.data.baseline import xz_bits_per_byte
from tritwise.data.build import BuildReport, build
from tritwise.data.documents import Document, document_text, load_documents, path_comment
from tritwise.data.encoder import Encoder
from tritwise.data.shards import TokenShard, write_shard
from tritwise.data.tokenizer import load_tokenizer, train_tokenizer

__all__ = [
    "BuildReport", "Document", "Encoder", "TokenShard", "build", "document_text", "load_documents", "load_tokenizer",
    "path_comment", "train_tokenizer", "write_shard", "xz_bits_per_byte",
]
