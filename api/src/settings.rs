//! Configuration files: HCL in SPIRE's keys, every mistake with its line.
