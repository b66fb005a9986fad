"""Names of options elsewhere, which sotol takes for its own."""

__all__ = ["OTHER_NAMES", "normalised"]

# What ollama, llama.cpp, llm and transformers call the same options.
OTHER_NAMES = {
    "temp": "temperature",
    "ctx-size": "ctx",
    "context-size": "ctx",
    "num-ctx": "ctx",
    "n-predict": "max-tokens",
    "predict": "max-tokens",
    "num-predict": "max-tokens",
    "max-new-tokens": "max-tokens",
    "num-thread": "threads",
    "repetition-penalty": "repeat-penalty",
    "system-prompt": "system",
    "no-wordwrap": "nowordwrap",
    "hidethinking": "hide-thinking",
    "reasoning-effort": "effort",
    "parallel": "sequences",
    "max-num-seqs": "sequences",
    "ubatch-size": "step-tokens",
    "max-num-batched-tokens": "step-tokens",
    "no-enable-prefix-caching": "no-prefix-cache",
    "cors-origins": "cors-origin",
    "allowed-origins": "cors-origin",
    "allowed-hosts": "allowed-host",
    "served-model-name": "alias",
    "outtype": "encoding",
    "chunks": "windows",
    "save-all-logits": "save-logits",
    "split-max-size": "max-size",
    "split-max-tensors": "max-tensors",
    "timeout-keep-alive": "idle-timeout",
}


def normalised(name: str) -> str:
    """The name by which sotol knows an option; Typer asks for each that it meets, without its dashes."""
    dashed = name.replace("_", "-")
    return OTHER_NAMES.get(dashed, dashed)
