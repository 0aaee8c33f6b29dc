//! Channels to the server, anchored in the trust bundle.
