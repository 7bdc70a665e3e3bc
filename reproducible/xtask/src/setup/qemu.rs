//! QEMU with the `nitro-enclave` machine, built from Debian's source package.
//!
//! Debian's own binaries lack the machine, which needs libcbor. Only what the machine needs is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Setup, debian, wheel};
use crate::cache::{KeyBuilder, make_folder, remove_folder};
use crate::command::run_logged;
use crate::progress::Step;

/// QEMU and its firmware. Start it with `-L firmware`.
#[derive(Clone, Debug)]
pub struct Qemu {
    /// `qemu-system-x86_64`.
    pub binary: PathBuf,
    /// The folder for `-L`.
    pub firmware: PathBuf,
}

const CONFIGURE: &[&str] = &[
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--without-default-devices",
    "--with-devices-x86_64=newton",
    "--enable-kvm",
    "--enable-tcg",
    "--enable-vhost-user",
    "--enable-gnutls",
    "--enable-libcbor",
    "--enable-fdt=system",
    "--disable-docs",
    "--disable-tools",
    "--disable-plugins",
    "--disable-install-blobs",
    "--disable-download",
    "--disable-debug-info",
    "--python=/usr/bin/python3",
];
const DEVICES: &str = "CONFIG_NITRO_ENCLAVE=y\n";
/// What that machine loads.
const FIRMWARE: &[&str] = &["qboot.rom", "linuxboot_dma.bin"];
const BINARY: &str = "qemu-system-x86_64";

pub fn build(setup: &Setup) -> Result<Qemu> {
    let inputs = setup.inputs();
    let mut key = KeyBuilder::new()
        .value("recipe", include_str!("qemu.rs"))
        .value("firmware", &inputs.firmware.sha256)
        .value("meson", &inputs.meson.sha256)
        // It is linked with the system's libraries.
        .value(
            "system",
            fs::read_to_string("/etc/os-release").unwrap_or_default(),
        );
    for (name, hash) in &inputs.qemu.files {
        key = key.value(name, hash);
    }
    let place = setup
        .cache()
        .find_or_build("qemu", &key.finish(), |place| {
            setup.packages()?;
            build_in(setup, place)
        })?;
    Ok(Qemu {
        binary: place.join(BINARY),
        firmware: place.join("firmware"),
    })
}

fn build_in(setup: &Setup, place: &Path) -> Result<()> {
    let (cache, inputs) = (setup.cache(), setup.inputs());
    let work = place.join("work");
    let (files, source, build) = (work.join("files"), work.join("qemu"), work.join("build"));
    for folder in [&files, &build] {
        make_folder(folder)?;
    }
    for (name, path) in debian::fetch_source(cache, &inputs.qemu)? {
        fs::copy(&path, files.join(&name)).with_context(|| format!("{name} cannot be copied"))?;
    }
    let meson = wheel::fetch(cache, &inputs.meson, &work)?;
    let firmware = debian::fetch_package(cache, &inputs.firmware)?;

    let log = cache.log("qemu");
    let mut step = Step::begin("Building QEMU with the nitro-enclave machine (some minutes)");
    let description = inputs.qemu.files.keys().find(|name| name.ends_with(".dsc"));
    let description = description.context("inputs.lock names no .dsc file for QEMU")?;
    // Every file's hash was checked already, so the signature on the .dsc adds nothing.
    let mut unpack = Command::new("dpkg-source");
    unpack
        .args(["--no-check", "--extract"])
        .arg(files.join(description))
        .arg(&source);
    run_logged(&mut unpack, &log, &mut step)?;
    let wheels = source.join("python/wheels");
    make_folder(&wheels)?;
    let wheel = meson.file_name().context("the wheel has no name")?;
    fs::copy(&meson, wheels.join(wheel)).context("the wheel cannot be copied")?;
    fs::write(
        source.join("configs/devices/x86_64-softmmu/newton.mak"),
        DEVICES,
    )
    .context("the device list cannot be written")?;
    let mut configure = Command::new(source.join("configure"));
    run_logged(
        configure.args(CONFIGURE).current_dir(&build),
        &log,
        &mut step,
    )?;
    run_logged(
        Command::new("ninja").arg(BINARY).current_dir(&build),
        &log,
        &mut step,
    )?;
    let mut strip = Command::new("strip");
    run_logged(
        strip
            .arg("-o")
            .arg(place.join(BINARY))
            .arg(build.join(BINARY)),
        &log,
        &mut step,
    )?;

    let unpacked = work.join("firmware");
    let mut unpack = Command::new("dpkg-deb");
    run_logged(
        unpack.arg("--extract").arg(&firmware).arg(&unpacked),
        &log,
        &mut step,
    )?;
    make_folder(&place.join("firmware"))?;
    for name in FIRMWARE {
        let from = unpacked.join("usr/share/qemu").join(name);
        fs::copy(&from, place.join("firmware").join(name))
            .with_context(|| format!("the firmware package has no {name}"))?;
    }
    remove_folder(&work)?;
    step.done();
    Ok(())
}
