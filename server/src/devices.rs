//! The fleet: endorsement keys that may enrol.
