//! A lower bound on now, for devices without a clock.
