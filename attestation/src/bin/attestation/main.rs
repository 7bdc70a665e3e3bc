//! `attestation`: shows and verifies attestation documents of Nitro enclaves.
//!
//! Exit codes: 0 fine, 2 wrong usage or unreadable input, 4 the document is malformed or fails verification.

mod input;
mod output;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use newton_attestation::document::UnverifiedDocument;
use newton_attestation::verify::{Expect, PcrPolicy, Unsigned, Verifier};
use newton_attestation::{PcrValue, TrustedRoot};

use input::HexBytes;

const EXIT_USAGE: u8 = 2;
const EXIT_REFUSED: u8 = 4;

/// Shows and verifies attestation documents of Nitro enclaves.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes: 0 fine, 2 wrong usage or unreadable input, 4 refused."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Prints what a document says. Proves nothing.
    Show {
        #[command(flatten)]
        input: Input,
    },
    /// Checks form, certificate chain, signature, age, registers, nonce and user data.
    Verify(Box<Verify>),
}

#[derive(Args)]
struct Input {
    /// The document: raw, hex or base64; `-` is standard input.
    file: PathBuf,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Verify {
    #[command(flatten)]
    input: Input,
    /// Expected PCR0: the whole image, 96 hex digits.
    #[arg(long, value_name = "HEX")]
    pcr0: PcrValue,
    /// Expected PCR1: kernel, command line and init.
    #[arg(long, value_name = "HEX")]
    pcr1: PcrValue,
    /// Expected PCR2: the application.
    #[arg(long, value_name = "HEX")]
    pcr2: PcrValue,
    /// Expected PCR8: the certificate that signed the image.
    #[arg(long, value_name = "HEX")]
    pcr8: Option<PcrValue>,
    /// Expected PCR16: the measured configuration.
    #[arg(long, value_name = "HEX")]
    pcr16: Option<PcrValue>,
    /// Expected nonce.
    #[arg(long, value_name = "HEX")]
    nonce: Option<HexBytes>,
    /// Expected user data.
    #[arg(long, value_name = "HEX")]
    user_data: Option<HexBytes>,
    /// Greatest age in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    max_age: u64,
    /// Verifies as of this time, in milliseconds since 1970, instead of now.
    #[arg(long, value_name = "MS")]
    at: Option<u64>,
    /// Accepts the unsigned documents of QEMU's emulated module, which anybody can make. For development.
    #[arg(long)]
    accept_emulated: bool,
    /// Trusts this root certificate (PEM or DER) in place of AWS Nitro Enclaves Root-G1.
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Show { input } => show(&input),
        Command::Verify(arguments) => verify(&arguments),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(EXIT_USAGE)
    })
}

fn show(input: &Input) -> anyhow::Result<ExitCode> {
    let bytes = input::read(&input.file)?;
    match UnverifiedDocument::parse(&bytes) {
        Ok(document) => {
            output::print(input.json, &output::shown_json(&document), || {
                output::shown_text(&document)
            });
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            let error = format!("malformed: {error}");
            output::print(input.json, &output::refused_json(&error, None), || {
                output::refused_text(&error, None)
            });
            Ok(ExitCode::from(EXIT_REFUSED))
        }
    }
}

fn verify(arguments: &Verify) -> anyhow::Result<ExitCode> {
    let bytes = input::read(&arguments.input.file)?;
    let mut policy = PcrPolicy::image(arguments.pcr0, arguments.pcr1, arguments.pcr2);
    for (index, value) in [(8, arguments.pcr8), (16, arguments.pcr16)] {
        if let Some(value) = value {
            policy = policy.with(index, value);
        }
    }
    let verifier = Verifier {
        root: root(arguments)?,
        policy,
        max_age_ms: Some(arguments.max_age.saturating_mul(1000)),
        unsigned: if arguments.accept_emulated {
            Unsigned::AcceptEmulated
        } else {
            Unsigned::Refuse
        },
    };
    let now_ms = match arguments.at {
        Some(at) => at,
        None => SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock is before 1970")?
            .as_millis() as u64,
    };
    let expect = |bytes: &'_ Option<HexBytes>| bytes.clone().map(|b| b.0);
    let (nonce, user_data) = (expect(&arguments.nonce), expect(&arguments.user_data));
    let result = verifier.verify(
        &bytes,
        now_ms,
        nonce.as_deref().map_or(Expect::Any, Expect::Exactly),
        user_data.as_deref().map_or(Expect::Any, Expect::Exactly),
    );
    let json = arguments.input.json;
    match result {
        Ok(document) => {
            output::print(json, &output::verified_json(&document), || {
                output::verified_text(&document)
            });
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            // Also a refusal says whether the document claims a signature at all.
            let algorithm = UnverifiedDocument::parse(&bytes).ok().map(|d| d.algorithm);
            let error = error.to_string();
            output::print(json, &output::refused_json(&error, algorithm), || {
                output::refused_text(&error, algorithm)
            });
            Ok(ExitCode::from(EXIT_REFUSED))
        }
    }
}

fn root(arguments: &Verify) -> anyhow::Result<TrustedRoot> {
    let Some(path) = &arguments.root else {
        return Ok(TrustedRoot::aws_nitro_g1());
    };
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let root = match core::str::from_utf8(&bytes) {
        Ok(text) if text.trim_start().starts_with("-----BEGIN") => TrustedRoot::from_pem(text),
        _ => TrustedRoot::from_der(&bytes),
    };
    root.with_context(|| format!("in {}", path.display()))
}
