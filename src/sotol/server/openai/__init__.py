"""OpenAI's dialect, with what llama-server and vLLM added to it: https://platform.openai.com/docs/api-reference"""
