//! The appliance as a plain process: for development only.

use super::{Kind, Machine, console};
use crate::ShimError;
use crate::config::ShimConfig;
use crate::spawn::Process;
use std::process::{Command, Stdio};

/// Names the folder of the sockets to an appliance built with the feature `process`.
const DIR_VARIABLE: &str = "NEWTON_PROCESS_DIR";

pub(super) fn launch(config: &ShimConfig) -> Result<Machine, ShimError> {
    let process = config.process()?;
    let (stdout, stderr) = console(&config.console())?;
    let mut command = Command::new(&process.appliance);
    command
        .args(&process.args)
        .env_clear()
        .envs(process.env.iter().cloned())
        .env(DIR_VARIABLE, &config.state_dir)
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr);
    let child = Process::spawn(command).map_err(|source| ShimError::Start {
        program: process.appliance.clone(),
        source,
    })?;
    let exit = child.exit();
    tracing::warn!(
        "development backend: the enclave is a plain process, nothing protects it from this host"
    );
    Ok(Machine {
        kind: Kind::Children(child, None),
        exit,
        accelerator: None,
    })
}
