//! A web server of the world's that says what a test wants it to say: over TLS, one answer to one request.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{ServerConnection, StreamOwned};

use crate::web_certificate::WebCertificate;

/// Serves until the process ends.
#[derive(Clone, Debug)]
pub struct StandInWeb {
    port: u16,
    answers: Arc<Mutex<Vec<String>>>,
}

impl StandInWeb {
    /// Proven by `web`, for `localhost`. It plays one of `answers` to each connection, the last of them for ever; `PORT_` in them is its own: as long as
    /// the kernel's choices are, so that lengths fit.
    pub fn start(web: &WebCertificate, answers: Vec<String>) -> Self {
        let (config, listener) = (web.server_config(), TcpListener::bind(("127.0.0.1", 0)).expect("a free port"));
        let port = listener.local_addr().expect("bound").port();
        let stand_in = Self { port, answers: Arc::new(Mutex::new(answers)) };
        let playing = stand_in.clone();
        std::thread::spawn(move || {
            for tcp in listener.incoming().flatten() {
                let connection = ServerConnection::new(config.clone()).expect("made");
                let mut tls = StreamOwned::new(connection, tcp);
                // Whatever it is asked; a peer that has enough hangs up.
                let _ = tls.read(&mut [0; 4096]);
                let _ = tls.write_all(playing.next().as_bytes()).and_then(|()| tls.flush());
                tls.conn.send_close_notify();
                let _ = tls.flush();
            }
        });
        stand_in
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it says from now on.
    pub fn say(&self, answer: String) {
        *self.answers.lock().unwrap_or_else(PoisonError::into_inner) = vec![answer];
    }

    fn next(&self) -> String {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = if answers.len() > 1 { answers.remove(0) } else { answers.first().cloned().unwrap_or_default() };
        answer.replace("PORT_", &self.port.to_string())
    }
}

/// A good answer with that body.
pub fn answer(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}
