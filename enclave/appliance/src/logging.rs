//! Log lines: to the console, and through the control channel to the host once there is one.
//!
//! Nothing that is logged may hold a secret or a plaintext parameter; types that hold one have no Debug. The host is the
//! reader, so a line is as public as an answer.

use std::{
    io::{self, Write},
    sync::OnceLock,
};

use newton_relay::control::{ControlClient, Level};
use tracing::Metadata;
use tracing_subscriber::{filter::LevelFilter, fmt::MakeWriter, layer::SubscriberExt, reload};

static CONTROL: OnceLock<ControlClient> = OnceLock::new();
static FILTER: OnceLock<reload::Handle<LevelFilter, tracing_subscriber::Registry>> =
    OnceLock::new();

/// Starts logging to the console, at `info`.
pub fn start() {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    // A line needs no clock of ours: the host adds its own.
    let lines = tracing_subscriber::fmt::layer()
        .without_time()
        .with_ansi(false)
        .with_writer(Lines);
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    if tracing::subscriber::set_global_default(subscriber).is_ok() {
        let _ = FILTER.set(handle);
    }
}

/// Sends lines to the host, too, at the manifest's level.
pub fn forward(control: ControlClient, level: &str) {
    let level = match level {
        "error" => LevelFilter::ERROR,
        "warn" => LevelFilter::WARN,
        "debug" => LevelFilter::DEBUG,
        _ => LevelFilter::INFO,
    };
    if let Some(filter) = FILTER.get() {
        let _ = filter.reload(level);
    }
    let _ = CONTROL.set(control);
}

struct Lines;

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            level: Level::Info,
            text: Vec::new(),
        }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        let level = match *meta.level() {
            tracing::Level::ERROR => Level::Error,
            tracing::Level::WARN => Level::Warn,
            tracing::Level::INFO => Level::Info,
            tracing::Level::DEBUG => Level::Debug,
            tracing::Level::TRACE => Level::Trace,
        };
        Line {
            level,
            text: Vec::new(),
        }
    }
}

struct Line {
    level: Level,
    text: Vec<u8>,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let text = String::from_utf8_lossy(&self.text);
        let text = text.trim_end();
        if text.is_empty() {
            return;
        }
        let _ = writeln!(io::stderr(), "{text}");
        if let Some(control) = CONTROL.get() {
            control.log(self.level, text);
        }
    }
}
