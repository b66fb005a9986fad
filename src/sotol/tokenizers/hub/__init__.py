"""Tokenizers as Hugging Face's tools write them: tokenizer.json and the files beside it, or tokenizer.model."""

from sotol.tokenizers.hub.read import read_hub_tokenizer, read_model_file

__all__ = ["read_hub_tokenizer", "read_model_file"]
