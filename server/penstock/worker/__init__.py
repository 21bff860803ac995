"""What runs inside a worker process: a Python model, and what speaks the worker protocol for it.

It needs Python 3.10 or later, its standard library and numpy, and nothing else: the interpreter may
be that of another virtual environment, which has neither this package's dependencies nor the
package. `__main__` is started by its path and makes just these modules importable.

The byte grammar is in csrc/worker/messages.h.
"""
