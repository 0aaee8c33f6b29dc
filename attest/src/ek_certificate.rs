//! Endorsement key certificates: profile, chain to manufacturer roots, manufacturer and model.
