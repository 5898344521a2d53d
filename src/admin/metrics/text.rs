//! The text of Prometheus and of OpenMetrics: which of the two, and how each writes a metric.

use std::{
    fmt::{self, Write},
    time::Duration,
};

use crate::status::Durations;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus's text, version 0.0.4.
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// By the `Accept` header: OpenMetrics for a client that prefers it or ranks it equal, else Prometheus's.
    pub fn accepted(accept: &str) -> Self {
        let (mut open_metrics, mut text) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let parameter = |name: &str| {
                let named = parameters.iter().find(|(key, _)| key.trim().eq_ignore_ascii_case(name));
                named.map(|(_, value)| value.trim().trim_matches('"'))
            };
            let quality = parameter("q").map_or(Ok(1.0), str::parse).unwrap_or(0.0);
            let liked = match kind.as_str() {
                "application/openmetrics-text"
                    if matches!(parameter("version"), None | Some("0.0.1" | "1.0.0")) =>
                {
                    &mut open_metrics
                }
                "text/plain" | "text/*" | "*/*" => &mut text,
                _ => continue,
            };
            *liked = f64::max(*liked, quality);
        }
        if open_metrics > 0.0 && open_metrics >= text { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Labels as text, without the braces.
#[derive(Debug, Clone, Default)]
pub(super) struct Labels(String);

impl Labels {
    pub(super) fn of(name: &str, value: &str) -> Self {
        Self::default().with(name, value)
    }

    pub(super) fn with(&self, name: &str, value: &str) -> Self {
        let mut text = self.0.clone();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(name);
        text.push_str("=\"");
        for character in value.chars() {
            match character {
                '\\' => text.push_str(r"\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str(r"\n"),
                other => text.push(other),
            }
        }
        text.push('"');
        Self(text)
    }
}

pub(super) type Sample = (Labels, f64);

/// The text, as far as it is written. A metric without a sample is not in it.
pub(super) struct Page {
    text: String,
    format: Format,
}

impl Page {
    pub(super) fn new(format: Format) -> Self {
        Self { text: String::with_capacity(8 << 10), format }
    }

    pub(super) fn end(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) {
        self.family(name, "gauge", help, samples);
    }

    pub(super) fn single(&mut self, name: &str, help: &str, value: Option<f64>) {
        self.gauge(name, help, value.map(|value| (Labels::default(), value)));
    }

    /// A counter, whose name ends in `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = Sample>) {
        self.family(name, "counter", help, samples);
    }

    /// Labels alone; the name ends in `_info`.
    pub(super) fn info(&mut self, name: &str, help: &str, labels: impl IntoIterator<Item = Labels>) {
        let samples = labels.into_iter().map(|labels| (labels, 1.0));
        // Prometheus's format has no such type.
        let kind = if self.format == Format::OpenMetrics { "info" } else { "gauge" };
        self.family(name, kind, help, samples);
    }

    pub(super) fn histograms<'a>(
        &mut self,
        name: &str,
        help: &str,
        histograms: impl IntoIterator<Item = (&'a Labels, &'a Durations)>,
    ) {
        let mut histograms = histograms.into_iter().peekable();
        if histograms.peek().is_some() {
            self.header(name, "histogram", help);
        }
        for (labels, durations) in histograms {
            let mut count = 0;
            let bucket = format!("{name}_bucket");
            for (bound, within) in Durations::BOUNDS.iter().zip(durations.within) {
                count += within;
                // With a fraction, as OpenMetrics wants it: 1.0.
                let bound = format!("{:?}", Duration::as_secs_f64(bound));
                self.sample(&bucket, &labels.with("le", &bound), count as f64);
            }
            self.sample(&bucket, &labels.with("le", "+Inf"), durations.count as f64);
            self.sample(&format!("{name}_sum"), labels, durations.sum.as_secs_f64());
            self.sample(&format!("{name}_count"), labels, durations.count as f64);
        }
    }

    fn family(&mut self, name: &str, kind: &str, help: &str, samples: impl IntoIterator<Item = Sample>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            self.header(name, kind, help);
        }
        for (labels, value) in samples {
            self.sample(name, &labels, value);
        }
    }

    fn header(&mut self, name: &str, kind: &str, help: &str) {
        let is_open_metrics = self.format == Format::OpenMetrics;
        let suffix = if kind == "counter" { "_total" } else { "_info" };
        let name = name.strip_suffix(suffix).filter(|_| is_open_metrics).unwrap_or(name);
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        let unit = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit));
        if let Some(unit) = unit.filter(|_| is_open_metrics) {
            self.line(format_args!("# UNIT {name} {unit}"));
        }
    }

    fn sample(&mut self, name: &str, Labels(labels): &Labels, value: f64) {
        let (open, close) = if labels.is_empty() { ("", "") } else { ("{", "}") };
        self.line(format_args!("{name}{open}{labels}{close} {value}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        let _ = writeln!(self.text, "{line}"); // a String takes any text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_what_the_scraper_likes_best() {
        let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
            application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
            text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, format) in [
            (prometheus_3, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            ("Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8", Format::OpenMetrics),
            ("application/openmetrics-text, text/plain", Format::OpenMetrics),
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain", Format::Prometheus),
            ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", Format::Prometheus),
            ("application/openmetrics-text;q=0.5,text/plain", Format::Prometheus),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=much", Format::Prometheus),
            ("application/openmetrics-text;version=2.0.0", Format::Prometheus),
            ("application/vnd.google.protobuf", Format::Prometheus),
            (";;,,=;q", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), format, "{accept:?}");
        }
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(Labels::of("a", "b\\c\"d\ne{},ü").0, r#"a="b\\c\"d\ne{},ü""#);
    }
}
