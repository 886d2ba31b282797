//! The server as its clients meet it: real loopback sockets, `dig`, and upstream servers good and bad.

mod crowd;
mod forward;
mod lab;
mod local;
mod services;
mod stream;
