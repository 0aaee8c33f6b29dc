//! Local unix processes: who is on the other end of this socket?
