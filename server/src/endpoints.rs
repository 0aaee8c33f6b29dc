//! What the server answers, and to whom: TCP with mutual TLS, and the admin socket.
