//! What a person and a program get to see of the results.

pub(crate) mod facts;
pub(crate) mod json;
pub(crate) mod plot;
pub(crate) mod table;
