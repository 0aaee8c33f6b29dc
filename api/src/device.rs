//! Devices: endorsement keys, manifests of them, wire form.
