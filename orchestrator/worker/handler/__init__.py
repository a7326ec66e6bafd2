"""A folder with a `handler.py`, served as the Hugging Face toolkit serves it. Nothing here imports torch."""
