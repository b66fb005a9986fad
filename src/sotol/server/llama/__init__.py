"""llama-server's own paths, beside those of OpenAI's dialect: tools/server/README.md of llama.cpp."""
