//! Several nodes with one store: the overlay, the routing mesh, and what fails without anybody noticing.

mod addresses;
mod away;
mod events;
mod forged;
mod losses;
mod members;
mod mesh;
mod overlay;
mod pages;
mod partitions;
mod ports;
mod removal;
mod stage;
mod store;
mod straight;
mod underlay6;
