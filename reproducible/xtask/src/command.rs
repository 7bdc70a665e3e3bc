//! Running other programs: output into a log, a clear error at the end of it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::progress::Step;

/// Lines of a failed command's log that are shown.
const TAIL: usize = 30;

/// Runs a command to its end with its output in `log`, which is appended to. Says now and then that it goes on.
///
/// # Errors
/// If it cannot be started or fails; the message has the last lines of its output.
pub fn run_logged(command: &mut Command, log: &Path, step: &mut Step) -> Result<()> {
    let shown = describe(command);
    let output = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(|| format!("{} cannot be written", log.display()))?;
    let begin = output.metadata().map_or(0, |meta| meta.len()) as usize;
    let errors = output
        .try_clone()
        .context("the log file cannot be shared")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .with_context(|| format!("{shown} could not be started"))?;
    let status = loop {
        if let Some(status) = child
            .try_wait()
            .with_context(|| format!("{shown} cannot be waited for"))?
        {
            break status;
        }
        thread::sleep(Duration::from_millis(50));
        step.tick();
    };
    if status.success() {
        return Ok(());
    }
    let bytes = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(bytes.get(begin..).unwrap_or_default()).into_owned();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines[lines.len().saturating_sub(TAIL)..].join("\n");
    bail!(
        "{shown} failed: {status}\n{tail}\n(all of its output: {})",
        log.display()
    );
}

/// What a command prints on its standard output.
///
/// # Errors
/// If it cannot be started or fails; the message has what it printed on its standard error.
pub fn output_of(command: &mut Command) -> Result<String> {
    let shown = describe(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{shown} could not be started"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!("{shown} failed: {}\n{}", output.status, errors.trim_end());
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{shown} printed something that is not text"))
}

/// Whether a command can be started and succeeds; its output is dropped.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status: ExitStatus| status.success())
}

fn describe(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(OsStr::to_string_lossy)
        .collect();
    let text = words.join(" ");
    match text.char_indices().nth(200) {
        Some((at, _)) => format!("`{} ...`", &text[..at]),
        None => format!("`{text}`"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failure_shows_the_end_of_the_output() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "from before\n").unwrap();
        let mut step = Step::begin("a test");
        run_logged(&mut shell("echo fine"), &log, &mut step).unwrap();
        let script = "for i in $(seq 100); do echo line $i; done; echo why >&2; exit 3";
        let error = run_logged(&mut shell(script), &log, &mut step)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 3") && error.contains("line 100\nwhy"),
            "{error}"
        );
        assert!(
            !error.contains("line 50\n") && !error.contains("from before"),
            "{error}"
        );
    }

    #[test]
    fn output_and_errors_are_told_apart() {
        assert_eq!(
            output_of(&mut shell("echo out; echo err >&2")).unwrap(),
            "out\n"
        );
        let error = output_of(&mut shell("echo out; echo err >&2; exit 1"))
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("err"), "{error}");
        assert!(output_of(&mut Command::new("/nowhere")).is_err());
        assert!(succeeds(&mut shell("true")) && !succeeds(&mut shell("false")));
    }
}
