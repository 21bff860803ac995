"""Batch prediction: a model over files of rows, resumable, with outputs that appear whole.

`plan` decides everything before the first row; `source` reads rows, `convert` makes tensors of
them, `runner` keeps requests in flight, `parts` commits outputs, `job` puts these together. What
answers requests is behind `engine`: `local` is the core in this process, `remote` a server.

Modules of this package, but for `pixels`, import numpy and pyarrow, so nothing else may import
them at start (tests/unit/test_layers.py).
"""
