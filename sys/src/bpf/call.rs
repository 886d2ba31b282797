//! The commands of the system call bpf(2) that are needed, each with just the part of its attributes that it reads: the
//! kernel takes what is missing for zero.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

const MAP_CREATE: libc::c_long = 0;
const MAP_LOOKUP_ELEM: libc::c_long = 1;
const MAP_UPDATE_ELEM: libc::c_long = 2;
const MAP_DELETE_ELEM: libc::c_long = 3;
const MAP_GET_NEXT_KEY: libc::c_long = 4;
const PROG_LOAD: libc::c_long = 5;
const BTF_LOAD: libc::c_long = 18;
const LINK_CREATE: libc::c_long = 28;

/// A program's type, and what it is attached to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kind {
    pub(super) program: u32,
    pub(super) attach: u32,
}

pub(super) const SK_LOOKUP: Kind = Kind { program: 30, attach: 36 };

/// Room for what the verifier has to say when it refuses a program.
const LOG: usize = 64 << 10;
/// What of it goes into an error.
const LOG_SHOWN: usize = 400;

/// As `bpf_map_create` reads it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NewMap {
    pub(super) kind: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) flags: u32,
    pub(super) inner_map_fd: u32,
    pub(super) numa_node: u32,
    pub(super) name: [u8; 16],
    pub(super) device: u32,
    /// A description of its contents, which maps of some types want to have, and which of its types are key and value.
    pub(super) types: u32,
    pub(super) key_type: u32,
    pub(super) value_type: u32,
}

#[repr(C)]
struct NewTypes {
    bytes: u64,
    log: u64,
    length: u32,
    log_length: u32,
    log_level: u32,
}

#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct NewProgram {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct NewLink {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

pub(super) fn create_map(map: &NewMap) -> io::Result<OwnedFd> {
    // SAFETY: the attributes hold no pointers.
    let fd = unsafe { call(MAP_CREATE, map) }?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `K` and `V` have the sizes that the map was made with.
pub(super) fn put<K: Copy, V: Copy>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    let element = element(map, std::ptr::from_ref(key) as u64, std::ptr::from_ref(value) as u64);
    // SAFETY: key and value outlive the call; the callers in `load` make maps of these very types.
    unsafe { call(MAP_UPDATE_ELEM, &element) }.map(|_| ())
}

/// `K` has the size that the map was made with.
pub(super) fn remove<K: Copy>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    let element = element(map, std::ptr::from_ref(key) as u64, 0);
    // SAFETY: the key outlives the call; the callers in `load` make maps of this very type.
    unsafe { call(MAP_DELETE_ELEM, &element) }.map(|_| ())
}

/// `K` and `V` have the sizes that the map was made with.
pub(super) fn get<K: Copy, V: Copy + Default>(map: BorrowedFd<'_>, key: &K) -> io::Result<V> {
    let mut value = V::default();
    let element = element(map, std::ptr::from_ref(key) as u64, std::ptr::from_mut(&mut value) as u64);
    // SAFETY: key and value outlive the call; the callers make maps of these very types.
    unsafe { call(MAP_LOOKUP_ELEM, &element) }?;
    Ok(value)
}

/// The key behind this one, in an order of the kernel's; none behind the last one. `K` has the size that the map was
/// made with.
pub(super) fn next_key<K: Copy + Default>(map: BorrowedFd<'_>, key: Option<&K>) -> io::Result<Option<K>> {
    let mut next = K::default();
    let key = key.map_or(0, |key| std::ptr::from_ref(key) as u64);
    let element = element(map, key, std::ptr::from_mut(&mut next) as u64);
    // SAFETY: both keys outlive the call; the callers make maps of this very type.
    match unsafe { call(MAP_GET_NEXT_KEY, &element) } {
        Ok(_) => Ok(Some(next)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells the kernel of types (BTF).
pub(super) fn load_types(bytes: &[u8]) -> io::Result<OwnedFd> {
    let new = NewTypes {
        bytes: bytes.as_ptr() as u64,
        log: 0,
        length: bytes.len() as u32,
        log_length: 0,
        log_level: 0,
    };
    // SAFETY: the bytes outlive the call, and their length is told.
    let fd = unsafe { call(BTF_LOAD, &new) }?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn element(map: BorrowedFd<'_>, key: u64, value: u64) -> Element {
    Element { map: number(map), padding: 0, key, value, flags: 0 }
}

/// Loads a program; refused, the error's text is the verifier's.
pub(super) fn load_program<I>(
    name: &str,
    kind: Kind,
    instructions: &[I],
    license: &std::ffi::CStr,
) -> io::Result<OwnedFd> {
    // Once without a log, which costs the kernel time and memory; on a refusal once more, to be told why.
    let refused = match load_with(name, kind, instructions, license, &mut []) {
        Ok(program) => return Ok(program),
        Err(error) => error,
    };
    let mut log = vec![0; LOG];
    let _ = load_with(name, kind, instructions, license, &mut log);
    let said = String::from_utf8_lossy(log.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
    let said = said.trim().chars().rev().take(LOG_SHOWN).collect::<Vec<_>>().into_iter().rev();
    let said = said.map(|letter| if letter == '\n' { ' ' } else { letter }).collect::<String>();
    if said.is_empty() || refused.kind() == io::ErrorKind::PermissionDenied {
        return Err(refused);
    }
    Err(io::Error::new(refused.kind(), format!("{refused}: {said}")))
}

fn load_with<I>(
    name: &str,
    kind: Kind,
    instructions: &[I],
    license: &std::ffi::CStr,
    log: &mut [u8],
) -> io::Result<OwnedFd> {
    const { assert!(size_of::<I>() == 8) };
    let new = NewProgram {
        kind: kind.program,
        instruction_count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log_level: u32::from(!log.is_empty()),
        log_size: log.len() as u32,
        log_buffer: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        kernel_version: 0,
        flags: 0,
        name: kernel_name(&format!("netd_{name}")),
        interface: 0,
        expected_attach_type: kind.attach,
    };
    // SAFETY: instructions (of eight bytes each), license and log outlive the call and have the lengths that are told.
    let fd = unsafe { call(PROG_LOAD, &new) }?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// As the kernel shows it to people. The last byte stays the end of the text.
pub(super) fn kernel_name(text: &str) -> [u8; 16] {
    let mut name = [0; 16];
    for (to, from) in name[..15].iter_mut().zip(text.bytes()) {
        *to = from;
    }
    name
}

/// Puts the program in force in a network namespace or a cgroup, for as long as the link is open.
pub(super) fn link(program: BorrowedFd<'_>, kind: Kind, target: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    link_to(program, kind, number(target))
}

fn link_to(program: BorrowedFd<'_>, kind: Kind, target: u32) -> io::Result<OwnedFd> {
    let new = NewLink { program: number(program), target, attach_type: kind.attach, flags: 0 };
    // SAFETY: the attributes hold no pointers.
    let fd = unsafe { call(LINK_CREATE, &new) }?;
    // SAFETY: the kernel has just made this descriptor (close-on-exec) for us, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts the program in force on a link of the calling thread's namespace, by its index, for as long as what is returned
/// is open and the link is there.
pub(super) fn link_to_device(program: BorrowedFd<'_>, kind: Kind, index: u32) -> io::Result<OwnedFd> {
    link_to(program, kind, index)
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// # Safety
/// What pointers `attributes` holds lead to memory that the command may read (and a log that it may write).
unsafe fn call<A>(command: libc::c_long, attributes: &A) -> io::Result<RawFd> {
    let attributes = std::ptr::from_ref(attributes);
    // SAFETY: the attributes outlive the call and their size is told; for the rest the caller vouches.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<A>()) };
    RawFd::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}
