"""Files that people take for models: what they are, by how they begin, and what to do instead."""

__all__ = ["seen_instead"]

BEGINNINGS = {
    b"version ": "it is a pointer of Git LFS: get the file itself, as by git lfs pull",
    b"<": "it is a web page: what was to be downloaded was not",
    b"{": "it is JSON: give the model's folder, not a file of it",
    b"PK\x03\x04": "it is a ZIP archive, as PyTorch's checkpoints are: get the model as SafeTensors or GGUF",
    b"\x80": "it is a pickle, as PyTorch's checkpoints are: get the model as SafeTensors or GGUF",
    **dict.fromkeys((b"lmgg", b"fmgg", b"tjgg"), "it is of llama.cpp before 2023-08: get the model as GGUF"),
}


def seen_instead(begin: bytes) -> str:
    """A clause for an error about a file that begins otherwise than its format does; "" where nothing is known.

    begin: its first bytes, eight or more.
    """
    return next((f"; {what}" for start, what in BEGINNINGS.items() if begin.startswith(start)), "")
