use serde::{Deserialize, Serialize};

/// The metadata section: what `nitro-cli describe-eif` shows. Unmeasured, so nothing may depend on it, and without
/// anything that differs between two builds of the same source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Metadata {
    /// Name of the image.
    pub image_name: String,
    /// Version of the image.
    pub image_version: String,
    /// How it was built.
    pub build_metadata: BuildMetadata,
    /// AWS's tools expect this key; there is no container image behind ours.
    pub docker_info: serde_json::Value,
    /// AWS's tools expect this key; empty in ours.
    pub custom_metadata: serde_json::Value,
}

/// The build half of [`Metadata`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct BuildMetadata {
    /// Always the epoch: a real time would differ between two builds.
    pub build_time: String,
    /// Name of the tool that wrote the image.
    pub build_tool: String,
    /// Its version.
    pub build_tool_version: String,
    /// Name of the operating system inside.
    pub operating_system: String,
    /// Version of its kernel.
    pub kernel_version: String,
}

impl Metadata {
    /// Metadata of an image with this name and version around this version of Linux.
    pub fn new(image_name: &str, image_version: &str, kernel_version: &str) -> Self {
        Self {
            image_name: image_name.to_owned(),
            image_version: image_version.to_owned(),
            build_metadata: BuildMetadata {
                build_time: "1970-01-01T00:00:00+00:00".to_owned(),
                build_tool: env!("CARGO_PKG_NAME").to_owned(),
                build_tool_version: env!("CARGO_PKG_VERSION").to_owned(),
                operating_system: "Linux".to_owned(),
                kernel_version: kernel_version.to_owned(),
            },
            docker_info: serde_json::Value::Object(serde_json::Map::new()),
            custom_metadata: serde_json::Value::Object(serde_json::Map::new()),
        }
    }
}
