//! What local processes reach: the Workload API socket.
