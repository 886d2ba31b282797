//! Logs of this process: one subscriber, whose filter can be changed while it runs. Access events have the target
//! `access`; the data plane has a subscriber of its own and is told the same filter over the link.

mod stderr;

use std::sync::OnceLock;

use anyhow::{Context, Result};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, fmt, reload};

use crate::config::LogFormat;
use stderr::Stderr;

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Starts logging to stderr. Called once per process, before the first thread.
pub(crate) fn start(filter: &str, format: LogFormat) -> Result<()> {
    let (filter, handle) = reload::Layer::new(parse(filter)?);
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        LogFormat::Text => registry.with(fmt::layer().with_writer(Stderr::new).with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(fmt::layer().json().with_writer(Stderr::new)).try_init(),
    }
    .context("cannot start logging")?;
    let _ = FILTER.set(handle);
    Ok(())
}

/// Changes what is logged from now on; `filter` is in the form `info,netd_dns=debug,access=off`.
pub(crate) fn set_filter(filter: &str) -> Result<()> {
    let parsed = parse(filter)?;
    FILTER
        .get()
        .context("logging has not been started")?
        .reload(parsed)
        .context("cannot change the log filter")
}

/// What is logged now.
pub(crate) fn filter() -> String {
    FILTER.get().and_then(|handle| handle.with_current(ToString::to_string).ok()).unwrap_or_default()
}

fn parse(filter: &str) -> Result<EnvFilter> {
    EnvFilter::builder().parse(filter).with_context(|| format!("log filter `{filter}` is not understood"))
}
