"""A folder with a `handler.py`, served as the Hugging Face toolkit serves it. Nothing here imports torch.

`worker/handler/` serves a folder with a `handler.py`, without torch. Its requirements.txt becomes an environment
laid over ours: a `.pth` file in it calls `site.addsitedir` on our site-packages, last. The worker's own needs are
therefore met whatever the file names, pip sees what is installed, the file's packages take precedence, and nothing
of ours changes. (`--system-site-packages` would show the base Python's packages instead of our virtual
environment's.) The environment is built in its final place under a lock, because the scripts of a moved one point
nowhere, and counts once its mark is written. The worker does this itself and then becomes the environment's Python
by `exec`: one process, one lifeline.
"""
