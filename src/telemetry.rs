//! Log lines: JSON off a terminal, text on one, always on standard error.
//!
//! A password must not reach a log at any level. Our own events hold none; the libraries below us log
//! requests and answers at DEBUG and TRACE, so whatever the filter says, theirs are cut off at INFO.

use std::io::{self, IsTerminal};

use tracing::{Level, Metadata, Subscriber, subscriber::Interest};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt,
    layer::{Context, Filter, SubscriberExt},
    reload,
    util::SubscriberInitExt,
};

use crate::config::{Log, LogFormat, units::LogFilter};

/// Changes the filter while the program runs.
pub struct FilterHandle(reload::Handle<Capped, Registry>);

impl FilterHandle {
    /// Uses `filter` from now on.
    pub fn set(&self, filter: &LogFilter) {
        // Fails only when the subscriber is gone, with the process.
        let _ = self.0.modify(|capped| capped.0.clone_from(filter.targets()));
    }
}

/// Starts logging.
pub fn start(log: &Log) -> FilterHandle {
    let (filter, handle) = reload::Layer::new(Capped(log.filter.targets().clone()));
    let format =
        log.format.unwrap_or(if io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json });
    let layer = match format {
        LogFormat::Json => {
            fmt::layer().json().flatten_event(true).with_target(false).with_writer(io::stderr).boxed()
        }
        LogFormat::Text => fmt::layer().with_target(false).with_ansi(false).with_writer(io::stderr).boxed(),
    };
    // Fails only when logging has been started already, as a test may.
    let _ = tracing_subscriber::registry().with(layer.with_filter(filter)).try_init();
    FilterHandle(handle)
}

/// The configured filter, with everybody else's events cut off at INFO.
struct Capped(Targets);

impl Capped {
    fn lets(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = target.starts_with(env!("CARGO_CRATE_NAME"));
        // Its warnings quote answers of the API server; what fails there is told by us.
        let quotes = target.starts_with("kube_client");
        (ours || (*metadata.level() <= Level::INFO && !quotes))
            && self.0.would_enable(metadata.target(), metadata.level())
    }
}

impl<S: Subscriber> Filter<S> for Capped {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.lets(metadata)
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.lets(metadata) { Interest::always() } else { Interest::never() }
    }
}
