//! Load: other people's generators where there is a good one, our own where there is none.

pub(crate) mod api;
pub(crate) mod dnsperf;
pub(crate) mod flight;
pub(crate) mod idle;
pub(crate) mod iperf;
pub(crate) mod question;
pub(crate) mod udp;
pub(crate) mod wrk;
