//! Reading documents and hex.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, bail};
use base64ct::{Base64, Base64UrlUnpadded, Encoding as _};
use newton_attestation::document::MAX_DOCUMENT_BYTES;

/// Most bytes of a file that are read: a document in hex with line breaks fits well.
const MAX_INPUT_BYTES: u64 = 4 * MAX_DOCUMENT_BYTES as u64;

/// Bytes given as hex on the command line, with or without `0x`.
#[derive(Clone)]
pub(crate) struct HexBytes(pub(crate) Vec<u8>);

impl FromStr for HexBytes {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        hex::decode(text.strip_prefix("0x").unwrap_or(text)).map(Self)
    }
}

/// Reads a document and undoes hex or base64.
pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("cannot open {}", path.display()))?)
    };
    source
        .take(MAX_INPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        bail!(
            "{} has more than {MAX_INPUT_BYTES} bytes: this is no attestation document",
            path.display()
        );
    }
    decode(bytes).with_context(|| format!("in {}", path.display()))
}

/// A COSE_Sign1 starts with 0x84 or 0xd2, which no hex or base64 text does.
fn decode(bytes: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Ok(error.into_bytes()),
    };
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    if text.is_empty() {
        bail!("the input is empty");
    }
    let digits = text.strip_prefix("0x").unwrap_or(&text);
    if let Ok(bytes) = hex::decode(digits) {
        return Ok(bytes);
    }
    let decoded = Base64::decode_vec(&text)
        .or_else(|_| Base64UrlUnpadded::decode_vec(text.trim_end_matches('=')));
    decoded
        .ok()
        .context("the input is neither a raw document nor hex nor base64")
}
