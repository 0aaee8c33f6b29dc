//! One server for all tests of a test binary.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::deployment::{Server, ServerOptions};

/// The server that tests which run at the same time share. It ends with the last of them.
pub struct SharedServer(Mutex<Weak<Server>>);

impl SharedServer {
    /// No server yet: a value for a `static`.
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// The server; it is started if none runs. Pass the same options in every test.
    pub fn get(&self, options: &ServerOptions) -> Arc<Server> {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.upgrade().unwrap_or_else(|| {
            let server = Arc::new(Server::start(options));
            *running = Arc::downgrade(&server);
            server
        })
    }
}

impl Default for SharedServer {
    fn default() -> Self {
        Self::new()
    }
}
