//! A SoftHSM token of one's own.
