"""Names of options elsewhere, which sotol takes for its own, and of commands, which it names the own of."""

__all__ = ["OTHER_COMMANDS", "OTHER_NAMES", "normalised"]

# What ollama, llm, mlx-lm and llama.cpp call commands.
OTHER_COMMANDS = {
    **dict.fromkeys(("chat", "generate", "prompt", "cli"), "run"),
    **dict.fromkeys(("models", "ls"), "list"),
    **dict.fromkeys(("download", "get"), "pull"),
    **dict.fromkeys(("remove", "delete"), "rm"),
    "unload": "stop",
    "inspect": "info",
    "ppl": "perplexity",
    "help": "--help",
    "version": "--version",
}

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
    "in-file": "add",
    "save-all-logits": "save-logits",
    "split-max-size": "max-size",
    "split-max-tensors": "max-tensors",
    "timeout-keep-alive": "idle-timeout",
}


def normalised(name: str) -> str:
    """The name by which sotol knows an option; Typer asks for each that it meets, without its dashes."""
    dashed = name.replace("_", "-")
    return OTHER_NAMES.get(dashed, dashed)
