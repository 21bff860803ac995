"""What clients reach: the gRPC services and the small HTTP side.

Handlers take and return bytes. Those that infer hand them to the core; the others go through
`penstock.codec`. Nothing here knows how the server is started or stopped: `readiness.Readiness`
tells what to answer.
"""
