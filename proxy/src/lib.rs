pub mod flows;
pub mod table;
pub mod udp;
