//! A server and any number of devices, as processes.
