"""Serving under load: sotol beside llama.cpp's server (`__main__.py`; docs/performance.md tells how to read it).

`trace.py` says who asks what and when, `play.py` asks it and notes when tokens come, `figures.py` makes numbers of
that, `scenarios.py` ties them together. Engines run in processes of their own: `sotol_engine.py`,
`sotol_http_engine.py`, `llama_engine.py`.
Only the standard library is imported here: each engine has another Python.
"""
