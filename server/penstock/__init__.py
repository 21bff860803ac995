"""Penstock serves machine-learning models over the Open Inference gRPC protocol.

The command line (`penstock serve`) is the usual way in; server/README.md tells the life of a
request.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
