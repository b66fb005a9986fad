"""Anthropic's dialect: https://docs.anthropic.com/en/api/messages"""
