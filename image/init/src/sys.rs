//! The system calls no safe library covers. All `unsafe` of this program is here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// `_IOWR(0x0A, 0, struct nsm_raw)` of `linux/nsm.h`: read and write (3 << 30), 32 bytes, type 0x0A, number 0.
const NSM_IOCTL_RAW: libc::Ioctl =
    (3 << 30) | (size_of::<NsmRaw>() as libc::Ioctl) << 16 | 0x0a << 8;
/// `RNDADDENTROPY` of `linux/random.h`: `_IOW('R', 0x03, int[2])`.
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
/// `RNDRESEEDCRNG` of `linux/random.h`: `_IO('R', 0x07)`.
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;
/// `SO_VM_SOCKETS_CONNECT_TIMEOUT` of `linux/vm_sockets.h`, in the form that takes a `timeval` of 64 bits each.
const CONNECT_TIMEOUT: libc::c_int = 6;
/// Bytes one call to the NSM gives at most.
const MAX_ENTROPY: usize = 256;

/// `struct nsm_raw` of `linux/nsm.h`: two `struct nsm_iovec`.
#[repr(C)]
struct NsmRaw {
    request_address: u64,
    request_len: u64,
    response_address: u64,
    response_len: u64,
}

/// `struct rand_pool_info` of `linux/random.h` with room for its flexible array.
#[repr(C)]
struct RandPoolInfo {
    entropy_bits: libc::c_int,
    len: libc::c_int,
    bytes: [u8; MAX_ENTROPY],
}

/// Sends a request to the NSM behind `device` and returns how many bytes of `response` it filled.
///
/// # Errors
/// What the driver says, or a length it cannot have filled.
pub fn nsm_request(device: &File, request: &[u8], response: &mut [u8]) -> io::Result<usize> {
    let mut message = NsmRaw {
        request_address: request.as_ptr() as u64,
        request_len: request.len() as u64,
        response_address: response.as_mut_ptr() as u64,
        response_len: response.len() as u64,
    };
    // SAFETY: `message` is the structure this request number names; both addresses point to live buffers of the lengths
    // beside them, the second exclusively borrowed, and the driver writes at most `response_len` bytes.
    check(unsafe { libc::ioctl(device.as_raw_fd(), NSM_IOCTL_RAW, &raw mut message) })?;
    usize::try_from(message.response_len)
        .ok()
        .filter(|len| *len <= response.len())
        .ok_or_else(|| io::Error::other("the NSM's driver returned an impossible length"))
}

/// Mixes `seed` into the kernel's generator behind `random`, credits eight bits a byte, and makes the generator take new
/// keys at once: left alone it would go on for seconds with keys made before, from sources the host may know.
///
/// # Errors
/// What the kernel says, or a seed of more than 256 bytes.
pub fn add_entropy(random: &File, seed: &[u8]) -> io::Result<()> {
    let mut info = RandPoolInfo {
        entropy_bits: 0,
        len: 0,
        bytes: [0; MAX_ENTROPY],
    };
    info.bytes
        .get_mut(..seed.len())
        .ok_or_else(|| io::Error::other("a seed has at most 256 bytes"))?
        .copy_from_slice(seed);
    info.len = seed.len() as libc::c_int;
    info.entropy_bits = info.len * 8;
    // SAFETY: `info` is the structure this request number names, and its array holds at least `len` bytes.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const info) })?;
    // SAFETY: the request takes no argument.
    check(unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) })
}

/// Brings the interface `lo` up.
///
/// # Errors
/// What the kernel says.
pub fn bring_loopback_up() -> io::Result<()> {
    let socket = socket(libc::AF_INET, libc::SOCK_DGRAM)?;
    // SAFETY: all-zero bytes are a valid `ifreq`, a name and a union of integers.
    let mut request: libc::ifreq = unsafe { zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: `request` is the structure this request number names, its name is terminated, its flags are set.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) })
}

/// Connects to a vsock port. Reads and writes on the result give up after the same time.
///
/// # Errors
/// What the kernel says; `TimedOut` when nobody answers in time.
pub fn connect_vsock(cid: u32, port: u32, timeout: Duration) -> io::Result<OwnedFd> {
    let socket = socket(libc::AF_VSOCK, libc::SOCK_STREAM)?;
    let time = libc::timeval {
        tv_sec: timeout.as_secs() as libc::time_t,
        tv_usec: libc::suseconds_t::from(timeout.subsec_micros()),
    };
    set_time(&socket, libc::AF_VSOCK, CONNECT_TIMEOUT, &time)?;
    set_time(&socket, libc::SOL_SOCKET, libc::SO_RCVTIMEO, &time)?;
    set_time(&socket, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &time)?;
    // SAFETY: all-zero bytes are a valid `sockaddr_vm`.
    let mut address: libc::sockaddr_vm = unsafe { zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    let len = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address points to a `sockaddr_vm` of that length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), len) })?;
    Ok(socket)
}

/// Waits until the console has shown all that was written to it: a reboot does not.
pub fn drain_console() {
    // SAFETY: takes a number only, and fails harmlessly if it is no terminal.
    unsafe { libc::tcdrain(libc::STDERR_FILENO) };
}

fn socket(family: libc::c_int, kind: libc::c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) };
    check(fd)?;
    // SAFETY: `fd` was just opened and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn set_time(
    socket: &OwnedFd,
    level: libc::c_int,
    name: libc::c_int,
    time: &libc::timeval,
) -> io::Result<()> {
    let len = size_of::<libc::timeval>() as libc::socklen_t;
    let value: *const libc::timeval = time;
    // SAFETY: the option's value is a `timeval` of that length.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value.cast(), len) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn request_numbers_are_those_of_the_headers() {
        // From a C program that prints them.
        assert_eq!(NSM_IOCTL_RAW, 0xc020_0a00);
        assert_eq!(RNDADDENTROPY, 0x4008_5203);
        assert_eq!(RNDRESEEDCRNG, 0x5207);
    }

    #[test]
    fn too_long_a_seed_is_refused() {
        let null = File::open("/dev/null").unwrap();
        assert!(add_entropy(&null, &[0; 257]).is_err());
        assert!(add_entropy(&null, &[0; 32]).is_err(), "not a random device");
    }
}
