"""Operations: what a row costs a model, counted in its ONNX graph, in processes of their own.

| module | what |
|---|---|
| `contractions.py` | what an operator multiplies and adds, from the shapes of its tensors |
| `shapes.py` | the shapes of a graph's tensors, from those of its inputs |
| `count.py` | both together: a model's operations; needs the package `onnx` |
| `text.py` | names of a graph, as a log may show them |
| `child.py` | the process that counts: files come from whoever makes models |
| `counter.py` | the server's side: starts it, bounds it, remembers |
"""

from penstock.operations.counter import GraphSource, OperationCount, OperationCounter

__all__ = ["GraphSource", "OperationCount", "OperationCounter"]
