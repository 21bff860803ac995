"""Who may call, as far as files and key sets say: read, watched, and told to the core.

The core decides on each call (csrc/engine/access.h). Nothing here logs or keeps a secret.
"""
