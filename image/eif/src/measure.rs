use std::fmt;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha384};

/// A platform configuration register: 48 bytes, shown as lower-case hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pcr(pub [u8; 48]);

impl Pcr {
    /// What one extension of an all-zero register with `digest` leaves: SHA-384(0^48 ‖ digest).
    fn extended_once(digest: Sha384) -> Self {
        let mut register = Sha384::new();
        register.update([0; 48]);
        register.update(digest.finalize());
        Self(register.finalize().into())
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for Pcr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The three registers a hypervisor fills from an image before it starts it.
///
/// Each is SHA-384(0^48 ‖ SHA-384(parts one behind the other)). The parts are not framed by their lengths, so the
/// registers bind their concatenation; where one part ends is bound by the kernel's own header and by the archives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Measurements {
    /// Kernel, command line and every ramdisk: the whole image.
    pub pcr0: Pcr,
    /// Kernel, command line and the first ramdisk: what boots.
    pub pcr1: Pcr,
    /// The ramdisks after the first: the application.
    pub pcr2: Pcr,
}

impl Measurements {
    /// Measures the parts of an image, in the order in which they stand in it.
    pub fn of<'a>(
        kernel: &[u8],
        command_line: &[u8],
        ramdisks: impl IntoIterator<Item = &'a [u8]>,
    ) -> Self {
        let (mut image, mut boot, mut application) = (Sha384::new(), Sha384::new(), Sha384::new());
        for part in [kernel, command_line] {
            image.update(part);
            boot.update(part);
        }
        for (index, ramdisk) in ramdisks.into_iter().enumerate() {
            image.update(ramdisk);
            if index == 0 {
                boot.update(ramdisk);
            } else {
                application.update(ramdisk);
            }
        }
        Self {
            pcr0: Pcr::extended_once(image),
            pcr1: Pcr::extended_once(boot),
            pcr2: Pcr::extended_once(application),
        }
    }
}
