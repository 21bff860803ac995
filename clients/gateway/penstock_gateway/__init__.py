"""HTTP in front of an Open Inference gRPC server: REST with Triton's extensions, as ASGI.

`app.Gateway` is the application, `upstream.Upstream` what it calls, `pool.Pool` the upstreams of a
fleet, `protocol.make_protocol` the HTTP/1.1 limits for uvicorn. Nothing is imported here: a server
that embeds the gateway takes the protocol at its start and the application at the first request.
"""
