//! The story of an agent process: open the TPM, publish the cache, serve, sync.
