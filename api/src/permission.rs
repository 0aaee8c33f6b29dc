//! PermissionDenied with SPIRE's machine-readable reason.
