//! The measured image: kernel, init and appliance, each built from pinned inputs and kept by the hash of them, put
//! together into an EIF.

mod assemble;
mod config;
mod kernel;
mod parts;
mod rust;
mod sources;
mod toolchain;
mod workshop;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use newton_eif::Measurements;
use serde::Serialize;

use crate::cache::{KeyBuilder, make_folder};
use crate::progress::say;
use crate::setup::Setup;

pub use assemble::{APPLIANCE_PATH, INIT_PATH, assemble};
pub use config::ImageConfig;
pub(crate) use parts::build_anew;
pub use parts::{Part, PartFiles};
pub use rust::DEVELOPMENT_MARKER;
pub use sources::Sources;
pub use toolchain::Toolchain;
pub use workshop::{Conditions, Workshop};

/// A built image.
#[derive(Clone, Debug, Serialize)]
pub struct Image {
    /// The image file.
    pub eif: PathBuf,
    /// Its length in bytes.
    pub eif_bytes: u64,
    /// PCR0, PCR1 and PCR2.
    #[serde(flatten)]
    pub measurements: Measurements,
    /// How this machine's compilers differ from the pinned ones; if it is not empty, the measurements are not those others
    /// get.
    pub toolchain_differences: Vec<String>,
    /// The parts it was put together from.
    #[serde(skip)]
    pub parts: PartFiles,
}

/// The name of the image file.
const EIF_NAME: &str = "newton.eif";

/// Builds the image, or finds it in the cache.
///
/// # Errors
/// If a part does not build, carries a development feature, or the parts do not make an image.
pub fn build(setup: &Setup) -> Result<Image> {
    let toolchain = Toolchain::of_this_machine(setup)?;
    let toolchain_differences = toolchain.differences(setup.inputs());
    let config = ImageConfig::read(setup.project())?;
    for difference in &toolchain_differences {
        say(&format!(
            "Warning: {difference}. The image will work, with measurements of its own."
        ));
    }
    let parts = parts::find_or_build(setup, &toolchain)?;
    // What puts it together: this program, the EIF writer and the compressor.
    let mut key = Sources::of(setup.project(), "newton-xtask", &config.inputs)?
        .add_to(KeyBuilder::new())
        .value("config", config.fingerprint())
        .value("kernel version", &setup.inputs().kernel.version);
    for (part, path) in parts.iter() {
        // Parts lie in folders named by the hash of their inputs.
        key = key.value(part.name(), path.as_os_str().as_encoded_bytes());
    }
    let place = setup
        .cache()
        .find_or_build("image", &key.finish(), |place| {
            let bytes = assemble(&config, setup.inputs(), &parts)?;
            fs::write(place.join(EIF_NAME), bytes).context("the image cannot be written")
        })?;
    let eif = place.join(EIF_NAME);
    let bytes = fs::read(&eif).with_context(|| format!("{} cannot be read", eif.display()))?;
    let measurements = newton_eif::Image::parse(&bytes)?.measurements();
    Ok(Image {
        eif,
        eif_bytes: bytes.len() as u64,
        measurements,
        toolchain_differences,
        parts,
    })
}

/// Copies an image and a description of it into a folder.
///
/// # Errors
/// If the folder cannot be written.
pub fn export(image: &Image, folder: &Path) -> Result<Image> {
    make_folder(folder)?;
    let exported = Image {
        eif: folder.join(EIF_NAME),
        ..image.clone()
    };
    let failed = || format!("{} cannot be written", folder.display());
    fs::copy(&image.eif, &exported.eif).with_context(failed)?;
    let json = serde_json::to_string_pretty(&exported.measurements)?;
    fs::write(folder.join("measurements.json"), json + "\n").with_context(failed)?;
    Ok(exported)
}
