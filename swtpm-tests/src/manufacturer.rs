//! A toy TPM maker: certifies endorsement keys and writes the certificates into the chip.
