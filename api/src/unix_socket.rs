//! Unix sockets that any gRPC client can talk to.
