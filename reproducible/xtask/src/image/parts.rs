//! The three compiled parts of an image and their keys.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::config::ImageConfig;
use super::rust::Program;
use super::sources::Sources;
use super::toolchain::Toolchain;
use super::workshop::{Conditions, Workshop};
use super::{kernel, rust};
use crate::cache::{Key, KeyBuilder, make_folder, remove_folder};
use crate::setup::Setup;

/// A compiled part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Linux.
    Kernel,
    /// PID 1.
    Init,
    /// The appliance.
    Appliance,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kernel, Self::Init, Self::Appliance];

    /// Its name: of the step, and of the file in the step's result.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Init => "init",
            Self::Appliance => "appliance",
        }
    }

    fn package(self) -> Option<&'static str> {
        match self {
            Self::Kernel => None,
            Self::Init => Some("newton-init"),
            Self::Appliance => Some("newton-appliance"),
        }
    }
}

/// Where the compiled parts are.
#[derive(Clone, Debug)]
pub struct PartFiles {
    /// A bzImage.
    pub kernel: PathBuf,
    /// A static program.
    pub init: PathBuf,
    /// A static program.
    pub appliance: PathBuf,
}

impl PartFiles {
    /// Every part with its file.
    pub fn iter(&self) -> [(Part, &Path); 3] {
        Part::ALL.map(|part| (part, self.of(part)))
    }

    /// The file of a part.
    pub fn of(&self, part: Part) -> &Path {
        match part {
            Part::Kernel => &self.kernel,
            Part::Init => &self.init,
            Part::Appliance => &self.appliance,
        }
    }
}

/// Finds each part in the cache, or builds it.
pub fn find_or_build(setup: &Setup, toolchain: &Toolchain) -> Result<PartFiles> {
    let file = |part: Part| -> Result<PathBuf> {
        let recipe = Recipe::of(setup, part)?;
        let place = setup
            .cache()
            .find_or_build(part.name(), &recipe.key(toolchain), |place| {
                setup.packages()?;
                let name = part.name();
                // Compiled dependencies stay, for the next build of the same program.
                let _lock = setup.cache().lock(&format!("workshop-{name}"))?;
                let folder = setup.cache().root().join("workshop").join(name);
                make_folder(&folder)?;
                recipe.build(
                    setup,
                    toolchain,
                    &Workshop::new(&folder, Conditions::usual()),
                    &place.join(name),
                )
            })?;
        Ok(place.join(part.name()))
    };
    Ok(PartFiles {
        kernel: file(Part::Kernel)?,
        init: file(Part::Init)?,
        appliance: file(Part::Appliance)?,
    })
}

/// Builds one part from nothing in a folder, with nothing of it in the cache used or left.
pub(crate) fn build_anew(
    setup: &Setup,
    toolchain: &Toolchain,
    part: Part,
    folder: &Path,
    conditions: Conditions,
    result: &Path,
) -> Result<()> {
    remove_folder(folder)?;
    make_folder(folder)?;
    Recipe::of(setup, part)?.build(setup, toolchain, &Workshop::new(folder, conditions), result)?;
    remove_folder(folder)
}

struct Recipe {
    part: Part,
    key: KeyBuilder,
    program: Option<(&'static str, Sources, Vec<String>)>,
}

impl Recipe {
    fn of(setup: &Setup, part: Part) -> Result<Self> {
        let project = setup.project();
        let key = KeyBuilder::new().value("workshop", include_str!("workshop.rs"));
        let Some(package) = part.package() else {
            let key = key
                .value("recipe", include_str!("kernel.rs"))
                .value("source", &setup.inputs().kernel.sha256)
                .file("options", &project.path("image/kernel/config"))?;
            return Ok(Self {
                part,
                key,
                program: None,
            });
        };
        let config = ImageConfig::read(project)?;
        let sources = Sources::of(project, package, &config.inputs)?;
        let allowed = config.allowed_features;
        let key = sources
            .add_to(key.value("recipe", include_str!("rust.rs")))
            .value("allowed features", allowed.join(" "));
        Ok(Self {
            part,
            key,
            program: Some((package, sources, allowed)),
        })
    }

    fn key(&self, toolchain: &Toolchain) -> Key {
        toolchain.add_to(self.key.clone()).finish()
    }

    fn build(
        &self,
        setup: &Setup,
        toolchain: &Toolchain,
        workshop: &Workshop,
        result: &Path,
    ) -> Result<()> {
        let log = setup.cache().log(self.part.name());
        match &self.program {
            None => kernel::build(setup, workshop, result, &log),
            Some((package, sources, allowed_features)) => {
                let program = Program {
                    package,
                    sources,
                    allowed_features,
                };
                rust::build(setup, toolchain, workshop, program, result, &log)
            }
        }
    }
}
