"""HTTP in front of a server: embedded beside its gRPC, or a gateway of its own for a fleet.

`penstock_gateway` (clients/gateway) is the protocol; what is here feeds it: the server's own
handlers without a socket between, or the replicas of `penstock gateway --upstream`.
"""
