//! Services of one host under load: their addresses, who is chosen, who is well, and replacing what answers.

mod balance;
mod clients;
mod health;
mod leave;
mod replace;
mod vip;
