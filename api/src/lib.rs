//! netd-api
