"""Tracked models: whose a model is, what is in it, where it came from and where it serves.

`Store` is the door. It keeps bytes in an `ArtifactDirectory`, by their digests, and everything
that is known about them in a `Database`; a row that names bytes commits only when they are durable.

sqlalchemy is imported throughout: whoever imports this package pays, and does so in a function.
"""
