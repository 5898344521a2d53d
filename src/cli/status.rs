//! `ecr-sidecar status`: asks the running sidecar, and shows its answer once or each second.
//!
//! On a terminal `--watch` draws over what it drew before. In a pipe it prints one block a second, with an empty
//! line between two; there is none inside of a block.

pub mod render;
mod table;

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    time::Duration,
};

use clap::ValueEnum;

use crate::{
    cli::admin_client::{self, Answer},
    clock::Clock,
    env::Environment,
    shutdown::Signals,
    status::wire,
};
use render::Medium;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// What `/status` answers, as it is.
    Json,
}

#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    #[error(
        "no sidecar answers on {address}: {source}; start one by `ecr-sidecar run`, or set its address by \
         --health-listen, ECR_SIDECAR_HEALTH_LISTEN or health.listen"
    )]
    NotRunning { address: SocketAddr, source: io::Error },
    #[error(
        "what answers on {address} is no ecr-sidecar's status ({detail}); set its address by \
         --health-listen, ECR_SIDECAR_HEALTH_LISTEN or health.listen"
    )]
    NotOurs { address: SocketAddr, detail: String },
    #[error("cannot install signal handlers")]
    Signals(#[source] io::Error),
}

/// Shows the status of the sidecar that listens on `listen`; with `watch` until a signal, or until the reader goes away.
pub async fn run(
    listen: SocketAddr,
    env: &Environment,
    format: Format,
    watch: bool,
) -> Result<(), StatusError> {
    let screen = Screen { format, terminal: io::stdout().is_terminal(), env };
    let first = screen.page(listen).await?;
    if !watch {
        let _ = write(&first); // a reader that went away is no failure
        return Ok(());
    }
    let mut signals = Signals::install().map_err(StatusError::Signals)?;
    let mut page = Ok(first);
    let mut between = if screen.terminal { CLEAR } else { "" };
    loop {
        let text = match &page {
            Ok(text) => screen.fitted(text),
            Err(error) => format!("{error}\n"), // it may be on its way back
        };
        if write(&format!("{between}{text}")).is_err() {
            return Ok(());
        }
        between = if screen.terminal { CLEAR } else { "\n" };
        let next = async {
            tokio::time::sleep(INTERVAL).await;
            screen.page(listen).await
        };
        tokio::select! {
            () = signals.stop() => return Ok(()),
            next = next => page = next,
        }
    }
}

const INTERVAL: Duration = Duration::from_secs(1);
/// The terminal's line for "home, and nothing below".
const CLEAR: &str = "\u{1b}[H\u{1b}[J";
/// Columns and rows of a terminal that doesn't report them.
const USUAL: (usize, usize) = (80, 24);

struct Screen<'a> {
    format: Format,
    terminal: bool,
    env: &'a Environment,
}

impl Screen<'_> {
    async fn page(&self, address: SocketAddr) -> Result<String, StatusError> {
        let answer = admin_client::ask(address, "/status").await;
        let Answer { yes, text } = answer.map_err(|source| StatusError::NotRunning { address, source })?;
        let not_ours = |detail: String| StatusError::NotOurs { address, detail };
        if !yes {
            return Err(not_ours("not HTTP 200".into()));
        }
        let status: wire::Status = serde_json::from_str(&text).map_err(|error| {
            // Only where it is wrong: errors of data quote the data.
            not_ours(format!("line {} column {}", error.line(), error.column()))
        })?;
        Ok(match self.format {
            Format::Json => format!("{}\n", text.trim_end()),
            Format::Table => render::text(&status, Clock::System.now(), self.medium()),
        })
    }

    fn medium(&self) -> Medium {
        if !self.terminal {
            return Medium::Plain;
        }
        let colour = self.env.get("NO_COLOR").is_none() && self.env.get("TERM") != Some("dumb");
        Medium::Terminal { width: size().0, colour }
    }

    /// As many lines as the terminal has: with more it would scroll each second.
    fn fitted(&self, text: &str) -> String {
        let rows = size().1.saturating_sub(1).max(2);
        let count = text.lines().count();
        if !self.terminal || self.format == Format::Json || count <= rows {
            return text.to_owned();
        }
        let shown = text.lines().take(rows - 1).flat_map(|line| [line, "\n"]);
        shown.collect::<String>() + &format!("… {} more lines\n", count - rows + 1)
    }
}

fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => USUAL,
    }
}

fn write(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}
