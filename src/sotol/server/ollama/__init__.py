"""Ollama's dialect: https://github.com/ollama/ollama/blob/main/docs/api.md"""
