//! The server as its clients meet it: real loopback sockets, `dig`, and upstream servers good and bad.

mod forward;
mod lab;
mod local;
mod stream;
