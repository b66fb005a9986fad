"""The chat page: its files, and what it asks the server for beside `/v1/models`."""
