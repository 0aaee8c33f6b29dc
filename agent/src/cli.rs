//! The command line: SPIRE's verbs and flags.
