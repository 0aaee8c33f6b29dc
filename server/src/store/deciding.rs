//! What time it is for a change.

use std::sync::{Arc, Mutex, PoisonError};

use ironroot_shell::clock::wall_unix;

use crate::clock::{Moment, ServerClock, Trust};

/// The server's clock, once there is one. Before that, and in tools, only the wall clock's own word: nothing is destroyed by it.
#[derive(Clone, Debug, Default)]
pub(super) struct Deciding(Arc<Mutex<Option<Arc<ServerClock>>>>);

impl Deciding {
    pub fn by(&self, clock: Arc<ServerClock>) {
        // One value, replaced as a whole.
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock);
    }

    pub fn moment(&self) -> Moment {
        let clock = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unproven = || Moment { now_unix: wall_unix(), counted: 0, trust: Trust::Settling };
        clock.map_or_else(unproven, |clock| clock.moment())
    }
}
