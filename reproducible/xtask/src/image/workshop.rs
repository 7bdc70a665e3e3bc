//! Where and under which conditions a part is compiled.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::thread;

use crate::command::succeeds;
use crate::progress::say;

/// What may differ between two machines without a difference in the image. The reproduction builds under others.
#[derive(Clone, Debug)]
pub struct Conditions {
    /// The umask, as the shell takes it.
    pub umask: &'static str,
    /// Environment variables beside those the recipe itself needs.
    pub environment: &'static [(&'static str, &'static str)],
    /// How many jobs run at once.
    pub jobs: usize,
}

impl Conditions {
    /// Those of every build.
    pub fn usual() -> Self {
        Self {
            umask: "022",
            environment: &[
                ("LC_ALL", "C"),
                ("TZ", "UTC"),
                ("USER", "newton"),
                ("LOGNAME", "newton"),
            ],
            jobs: cores(),
        }
    }

    /// Others: what must make no difference is different.
    pub fn unusual() -> Self {
        Self {
            umask: "077",
            environment: &[
                ("LC_ALL", "C.UTF-8"),
                ("LANG", "tr_TR.UTF-8"),
                ("TZ", "Asia/Kathmandu"),
                ("USER", "somebody-else"),
                ("LOGNAME", "somebody-else"),
                ("HOSTNAME", "another-machine"),
                ("COLUMNS", "40"),
            ],
            jobs: cores() + 1,
        }
    }
}

/// A folder to compile in, cut off from the network.
#[derive(Clone, Debug)]
pub struct Workshop {
    /// The folder. What is made there is thrown away, or kept for the next build of the same part.
    pub folder: PathBuf,
    /// The conditions.
    pub conditions: Conditions,
}

impl Workshop {
    /// A workshop in a folder.
    pub fn new(folder: &Path, conditions: Conditions) -> Self {
        Self {
            folder: folder.to_owned(),
            conditions,
        }
    }

    /// A command that runs `program` here: without a network, with nothing of the caller's environment, and with `path`
    /// before the system's own programs.
    pub fn command(&self, program: &str, path: Option<&Path>) -> Command {
        let mut words: Vec<&str> = isolation().to_vec();
        let script = format!("umask {} && exec \"$@\"", self.conditions.umask);
        words.extend(["/bin/sh", "-c", &script, "sh", program]);
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .current_dir(&self.folder)
            .env_clear();
        let system = "/usr/sbin:/usr/bin:/sbin:/bin";
        let path = path.map_or_else(
            || system.to_owned(),
            |path| format!("{}:{system}", path.display()),
        );
        command
            .env("PATH", path)
            .env("HOME", self.folder.join("home"))
            .env("SOURCE_DATE_EPOCH", "0")
            .envs(self.conditions.environment.iter().copied());
        command
    }
}

/// What makes a command run without a network, if anything does here.
fn isolation() -> &'static [&'static str] {
    static FOUND: OnceLock<&[&str]> = OnceLock::new();
    FOUND.get_or_init(|| {
        // As root; or as anybody, where the kernel lets users make namespaces.
        let ways: [&[&str]; 2] = [
            &["/usr/bin/unshare", "--net", "--"],
            &["/usr/bin/unshare", "--map-root-user", "--net", "--"],
        ];
        for way in ways {
            if succeeds(Command::new(way[0]).args(&way[1..]).arg("/bin/true")) {
                return way;
            }
        }
        say("This user may not cut a process off from the network, so the compilers run with it.");
        &["/usr/bin/env"]
    })
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::command::output_of;

    #[test]
    fn nothing_of_the_caller_gets_in() {
        let folder = tempfile::tempdir().unwrap();
        let workshop = Workshop::new(folder.path(), Conditions::unusual());
        let mut command = workshop.command("/bin/sh", Some(Path::new("/rust/bin")));
        let printed = output_of(command.args([
            "-c",
            "umask; pwd -P; env | sort | cut -d= -f1 | tr '\\n' ' '; echo $PATH",
        ]))
        .unwrap();
        let lines: Vec<_> = printed.lines().collect();
        assert_eq!(lines[0], "0077");
        assert_eq!(Path::new(lines[1]), folder.path().canonicalize().unwrap());
        assert!(
            lines[2].ends_with("/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            "{printed}"
        );
        let expected = [
            "COLUMNS",
            "HOME",
            "HOSTNAME",
            "LANG",
            "LC_ALL",
            "LOGNAME",
            "PATH",
            "PWD",
            "SOURCE_DATE_EPOCH",
            "TZ",
            "USER",
        ];
        let names: Vec<_> = lines[2]
            .split(' ')
            .filter(|word| expected.contains(word))
            .collect();
        assert_eq!(names, expected, "{printed}");
        assert!(!lines[2].contains("CARGO"), "{printed}");
    }
}
