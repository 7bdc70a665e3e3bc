//! The EIF under `nitro-cli`, on an EC2 host with enclaves enabled.
//!
//! **Not tried on hardware.** Written against the documentation of `nitro-cli` 1.4: `run-enclave`, `describe-enclaves` and
//! `terminate-enclave` with their JSON output, and tested against a program that prints that output. What the documentation
//! leaves open and only a host can show: how soon `describe-enclaves` forgets an enclave that ended by itself, whether the CID can
//! be taken again at once, and the time a boot takes. The first heartbeat (port 9000) is answered by `nitro-cli` itself.
//!
//! The enclave is not a child of the shim's and survives it; a running one of the configured name is taken over.

use super::{Kind, Machine};
use crate::ShimError;
use crate::config::{NitroConfig, ShimConfig};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// Starting copies the image into the enclave's memory.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);
const DESCRIBE_TIMEOUT: Duration = Duration::from_secs(20);
/// How often a running enclave is looked for.
const WATCH_PERIOD: Duration = Duration::from_secs(2);
/// Failures to describe in a row after which the enclave counts as gone.
const MAX_FAILURES: u32 = 15;

/// A running Nitro enclave.
pub(super) struct Enclave {
    nitro_cli: PathBuf,
    id: String,
    watcher: AbortHandle,
}

/// What `run-enclave` prints, and an element of what `describe-enclaves` prints; fields beyond these are ignored.
#[derive(Debug, Deserialize)]
struct Description {
    #[serde(rename = "EnclaveName", default)]
    name: Option<String>,
    #[serde(rename = "EnclaveID")]
    id: String,
    #[serde(rename = "EnclaveCID")]
    cid: u32,
    #[serde(rename = "State", default)]
    state: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Terminated {
    #[serde(rename = "Terminated")]
    terminated: bool,
}

impl Description {
    fn runs(&self) -> bool {
        self.state
            .as_deref()
            .is_some_and(|s| s.eq_ignore_ascii_case("running"))
    }
}

pub(super) async fn launch(config: &ShimConfig) -> Result<Machine, ShimError> {
    let nitro = config.nitro()?;
    tracing::warn!(
        "backend nitro follows nitro-cli's documentation and has not been tried on hardware yet"
    );
    let standing = describe(&nitro.nitro_cli).await?;
    let ours = standing
        .into_iter()
        .find(|d| d.name.as_deref() == Some(nitro.name.as_str()) && d.runs());
    let enclave = match ours {
        Some(enclave) => {
            tracing::info!(id = enclave.id, "taking over the enclave that runs");
            enclave
        }
        None => start(nitro).await?,
    };
    if enclave.cid != nitro.cid {
        return Err(ShimError::Nitro {
            command: "run-enclave",
            reason: format!(
                "enclave {} has CID {}, expected {}",
                enclave.id, enclave.cid, nitro.cid
            ),
        });
    }
    let (sender, exit) = watch::channel(None);
    let (nitro_cli, id) = (nitro.nitro_cli.clone(), enclave.id.clone());
    let watcher = tokio::spawn(async move {
        let how = watch_until_gone(&nitro_cli, &id).await;
        // Nobody may be interested any more.
        let _ = sender.send(Some(how));
    });
    let enclave = Enclave {
        nitro_cli: nitro.nitro_cli.clone(),
        id: enclave.id,
        watcher: watcher.abort_handle(),
    };
    Ok(Machine {
        kind: Kind::Nitro(enclave),
        exit,
        accelerator: None,
    })
}

impl Enclave {
    pub(super) async fn terminate(&self) {
        let arguments = ["--enclave-id", &self.id];
        match run::<Terminated>(
            &self.nitro_cli,
            "terminate-enclave",
            &arguments,
            DESCRIBE_TIMEOUT,
        )
        .await
        {
            Ok(Terminated { terminated: true }) => {}
            Ok(_) => {
                tracing::error!(id = self.id, "nitro-cli did not terminate the enclave");
            }
            Err(error) => {
                tracing::error!(%error, id = self.id, "the enclave could not be terminated");
            }
        }
    }
}

impl Drop for Enclave {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}

async fn start(nitro: &NitroConfig) -> Result<Description, ShimError> {
    let (cpus, memory, cid) = (
        nitro.cpus.to_string(),
        nitro.memory_mib.to_string(),
        nitro.cid.to_string(),
    );
    let eif = nitro.eif.display().to_string();
    let arguments = [
        "--enclave-name",
        &nitro.name,
        "--eif-path",
        &eif,
        "--cpu-count",
        &cpus,
        "--memory",
        &memory,
        "--enclave-cid",
        &cid,
    ];
    run(&nitro.nitro_cli, "run-enclave", &arguments, RUN_TIMEOUT).await
}

async fn describe(nitro_cli: &Path) -> Result<Vec<Description>, ShimError> {
    run(nitro_cli, "describe-enclaves", &[], DESCRIBE_TIMEOUT).await
}

async fn watch_until_gone(nitro_cli: &Path, id: &str) -> String {
    let mut failures = 0;
    loop {
        sleep(WATCH_PERIOD).await;
        match describe(nitro_cli).await {
            Ok(all) if all.iter().any(|d| d.id == id && d.runs()) => failures = 0,
            Ok(_) => return "nitro-cli no longer lists it as running".to_owned(),
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, failures, "cannot look after the enclave");
                if failures >= MAX_FAILURES {
                    return format!("nitro-cli failed {failures} times in a row");
                }
            }
        }
    }
}

/// Runs `nitro-cli` and parses what it prints. It mixes messages for people into its standard error only.
async fn run<T: DeserializeOwned>(
    nitro_cli: &Path,
    command: &'static str,
    arguments: &[&str],
    limit: Duration,
) -> Result<T, ShimError> {
    let failed = |reason: String| ShimError::Nitro { command, reason };
    let output = Command::new(nitro_cli)
        .arg(command)
        .args(arguments)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(limit, output)
        .await
        .map_err(|_| failed(format!("no answer within {limit:?}")))?
        .map_err(|e| failed(format!("{} cannot be run: {e}", nitro_cli.display())))?;
    if !output.status.success() {
        let text = newton_relay::printable(&output.stderr, 1000);
        return Err(failed(format!("{}: {text}", output.status)));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| failed(format!("unexpected output: {e}")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Prints what the documentation shows; a file stands for the enclave.
    const NITRO_CLI: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
echo "$@" >> calls
one='{"EnclaveName":"newton","EnclaveID":"i-abc12345def67890a-enc9876abcd543210ef12","ProcessID":12345,"EnclaveCID":16,"NumberOfCPUs":2,"CPUIDs":[1,3],"MemoryMiB":1600'
case "$1" in
run-enclave) echo "Start allocating memory..." >&2; touch running; echo "$one}" ;;
describe-enclaves) if [ -e running ]; then echo "[$one,\"State\":\"RUNNING\",\"Flags\":\"NONE\"}]"; else echo "[]"; fi ;;
terminate-enclave) rm running; echo '{"EnclaveName":"newton","EnclaveID":"i","Terminated":true}' ;;
esac
"#;

    fn config(dir: &Path) -> ShimConfig {
        let program = dir.join("nitro-cli");
        std::fs::write(&program, NITRO_CLI).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let file = dir.join("shim.toml");
        std::fs::write(&file, include_str!("../../shim.example.toml")).unwrap();
        let mut config = ShimConfig::load(&file).unwrap();
        config.nitro.as_mut().unwrap().nitro_cli = program;
        config
    }

    fn calls(dir: &Path) -> String {
        std::fs::read_to_string(dir.join("calls")).unwrap()
    }

    #[tokio::test]
    async fn started_taken_over_and_terminated() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let first = launch(&config).await.unwrap();
        assert!(calls(dir.path()).contains(
            "run-enclave --enclave-name newton --eif-path /usr/share/newton/enclave.eif --cpu-count 2 --memory 2048 --enclave-cid 16"
        ));
        // A shim that went away has left it running.
        drop(first);
        assert!(dir.path().join("running").exists());
        let second = launch(&config).await.unwrap();
        assert_eq!(calls(dir.path()).matches("run-enclave").count(), 1);
        assert!(second.is_running());
        second.kill().await;
        assert!(!second.is_running());
        assert!(!dir.path().join("running").exists());
        assert!(
            calls(dir.path()).contains(
                "terminate-enclave --enclave-id i-abc12345def67890a-enc9876abcd543210ef12"
            )
        );
    }

    #[tokio::test]
    async fn failures_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(dir.path());
        config.nitro.as_mut().unwrap().cid = 20;
        let error = launch(&config).await.err().unwrap().to_string();
        assert!(error.contains("CID 16, expected 20"), "{error}");
        std::fs::write(
            dir.path().join("nitro-cli"),
            "#!/bin/sh\necho '[ E26 ] Insufficient memory' >&2; exit 1\n",
        )
        .unwrap();
        let error = launch(&config).await.err().unwrap().to_string();
        assert!(error.contains("E26"), "{error}");
        config.nitro.as_mut().unwrap().nitro_cli = "/does/not/exist".into();
        assert!(matches!(
            launch(&config).await,
            Err(ShimError::Nitro { .. })
        ));
    }
}
