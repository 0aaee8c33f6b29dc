//! Registration entries: bounds, masks, wire form.
