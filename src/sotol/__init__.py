"""Sotol: an LLM inference engine in Python all the way down."""

__version__ = "0.1.0"
