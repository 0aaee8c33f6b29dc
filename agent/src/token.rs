//! A PKCS#11 token with keys of this device, opened when one of them is first needed.
//!
//! At a start the token may be away: whoever needs it tries again later, and nothing else waits for it. Once open, what befalls it is
//! `ironroot_hsm`'s affair.

use std::fmt;
use std::sync::Arc;

use ironroot_hsm::settings::TokenAccess;
use ironroot_hsm::{HsmError, PinError, Token};
use thiserror::Error;
use tokio::sync::OnceCell;

/// Sessions that sign at once: one agent signs rarely, and one thing after the other.
const SESSIONS: usize = 1;

/// The token, opened or not yet. Cloning shares it.
#[derive(Clone)]
pub struct LazyToken {
    access: Arc<TokenAccess>,
    opened: Arc<OnceCell<Token>>,
}

/// Why the token is not open.
#[derive(Debug, Error)]
pub enum TokenFailure {
    /// There is no PIN to open it with.
    #[error("the PIN of the token cannot be read")]
    Pin(#[from] PinError),
    /// It is away, or does not let us in.
    #[error("the token cannot be used")]
    Token(#[from] HsmError),
}

impl LazyToken {
    /// Opens nothing.
    pub fn new(access: TokenAccess) -> Self {
        Self { access: Arc::new(access), opened: Arc::default() }
    }

    /// The open token; tries to open it if it is not. A PIN that was refused is not sent again by this process.
    pub async fn get(&self) -> Result<Token, TokenFailure> {
        self.opened.get_or_try_init(|| self.open()).await.cloned()
    }

    async fn open(&self) -> Result<Token, TokenFailure> {
        let access = self.access.clone();
        let opened = tokio::task::spawn_blocking(move || Ok(Token::open(access.config(SESSIONS)?)?)).await;
        opened.unwrap_or(Err(TokenFailure::Token(HsmError::Closed)))
    }
}

/// The same token, opened in the same way.
impl PartialEq for LazyToken {
    fn eq(&self, other: &Self) -> bool {
        self.access == other.access
    }
}

impl Eq for LazyToken {}

impl fmt::Debug for LazyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LazyToken({})", self.access.token)
    }
}
