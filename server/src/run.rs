//! The story of a server process: config, build, serve, drain.
