//! Log lines: JSON off a terminal, text on one, always on standard error.
//!
//! A password must not reach a log at any level. Our own events hold none, and the foreign text in them is cleaned
//! where it enters; the libraries below us log requests and answers at DEBUG and TRACE, so whatever the filter says,
//! theirs are cut off at INFO, and what is left is cleaned (`events_of_libraries_are_cleaned`).
//!
//! Logging never blocks: lines go through [`log_queue`](crate::log_queue).

use std::{
    fmt::{self, Write},
    io::{self, IsTerminal},
    time::Duration,
};

use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    subscriber::Interest,
};
use tracing_subscriber::{
    Layer, Registry,
    filter::Targets,
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::Writer,
        layer,
        time::{FormatTime, SystemTime},
    },
    layer::{Context, Filter, SubscriberExt},
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt,
};

use crate::{
    config::{Log, LogFormat},
    failure::foreign_text::clean,
    log_queue::{LOG, Line},
};

/// How long the end of the process waits for whoever reads the log.
const FLUSH_LIMIT: Duration = Duration::from_millis(500);

pub(crate) struct FilterHandle(reload::Handle<Capped, Registry>);

impl FilterHandle {
    pub(crate) fn set(&self, filter: &Targets) {
        // Fails only when the subscriber is gone, with the process.
        let _ = self.0.modify(|capped| capped.0.clone_from(filter));
    }
}

pub(crate) fn start(log: &Log) -> FilterHandle {
    LOG.start();
    std::panic::set_hook(Box::new(|panic| {
        // Its message may quote what is being worked on.
        LOG.push(format!("{}\n", clean(&panic.to_string())).as_bytes());
    }));
    let (filter, handle) = reload::Layer::new(Capped(log.filter.clone()));
    let format =
        log.format.unwrap_or(if io::stderr().is_terminal() { LogFormat::Text } else { LogFormat::Json });
    // Fails only when logging has been started already, as a test may.
    let _ = tracing_subscriber::registry().with(lines(format, || Line(&LOG)).with_filter(filter)).try_init();
    FilterHandle(handle)
}

/// Writes to standard error, behind the lines of the log, without waiting for a reader for long.
pub(crate) fn print_error(text: &str) {
    LOG.push(format!("{text}\n").as_bytes());
    flush();
}

pub(crate) fn flush() {
    LOG.flush(FLUSH_LIMIT);
}

fn lines<S>(
    format: LogFormat,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let layer = layer().with_target(false).with_ansi(false).with_writer(writer);
    match format {
        LogFormat::Json => {
            layer.json().flatten_event(true).map_event_format(|ours| Cleaned { ours, format }).boxed()
        }
        LogFormat::Text => layer.map_event_format(|ours| Cleaned { ours, format }).boxed(),
    }
}

fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
}

/// Writes our events by `ours`, and those of libraries as one cleaned text.
struct Cleaned<F> {
    ours: F,
    format: LogFormat,
}

impl<S, N, F> FormatEvent<S, N> for Cleaned<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        if is_ours(metadata) {
            return self.ours.format_event(context, writer, event);
        }
        let mut fields = Fields(String::new());
        event.record(&mut fields);
        let (level, target, text) = (metadata.level(), metadata.target(), clean(&fields.0));
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        match self.format {
            LogFormat::Json => {
                let line = serde_json::json!({
                    "timestamp": time, "level": level.as_str(), "message": text, "library": target,
                });
                writeln!(writer, "{line}")
            }
            LogFormat::Text => writeln!(writer, "{time} {level:>5} {target}: {text}"),
        }
    }
}

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let separator = if self.0.is_empty() { "" } else { " " };
        let _ = match field.name() {
            "message" => write!(self.0, "{separator}{value:?}"),
            name => write!(self.0, "{separator}{name}={value:?}"),
        }; // a String takes any text
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        // Without the escapes of `Debug`, which would hide a line's end from the filter.
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// The configured filter, with everybody else's events cut off at INFO.
struct Capped(Targets);

impl Capped {
    fn lets(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        // Its warnings quote answers of the API server; what fails there is reported by us.
        let quotes = target.starts_with("kube_client");
        (is_ours(metadata) || (*metadata.level() <= Level::INFO && !quotes))
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, event: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::registry().with(lines(format, move || writer.clone()));
        tracing::subscriber::with_default(subscriber, event);
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn events_of_libraries_are_cleaned() {
        let hostile =
            format!("no\n[+] ok\u{1b}[2J\u{202e} {} to request `Request {{ SECRET", "a".repeat(400));
        for format in [LogFormat::Json, LogFormat::Text] {
            let text = logged(format, || {
                tracing::warn!(target: "hyper::client", error = hostile, debug = ?hostile, "failed: {hostile}");
            });
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(
                text.contains("WARN") && text.contains("failed: no [+] ok [2J [400 characters redacted]")
            );
            assert!(
                !text.contains("SECRET") && !text.contains("\\n") && !text.contains('\u{202e}'),
                "{text}"
            );
        }
    }

    #[test]
    fn our_events_keep_their_fields() {
        let text = logged(LogFormat::Json, || tracing::warn!(output = "x", failures = 3, "not written"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "not written");
        assert_eq!((&line["output"], &line["failures"]), (&"x".into(), &3.into()));
        let text = logged(LogFormat::Text, || tracing::warn!(output = "x", "not written"));
        assert!(text.contains(" WARN not written output=\"x\""), "{text}");
    }
}
