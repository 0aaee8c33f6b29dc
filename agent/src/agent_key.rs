//! Where the agent's own TLS key lives: TPM, disk or memory.
