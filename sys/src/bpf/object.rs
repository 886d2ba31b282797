//! From an object file to programs and maps in the kernel.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use super::call::{self, Kind, NewMap};
use crate::error::{Doing as _, KernelError};

/// The reader of object files reads it in place, word by word.
#[repr(align(8))]
pub(super) struct Aligned<T: ?Sized>(pub(super) T);

const LOAD: &str = "load the BPF program";

/// A map whose entries belong to sockets.
const SK_STORAGE: u32 = 24;

pub(super) struct Object {
    programs: HashMap<String, OwnedFd>,
    maps: HashMap<String, OwnedFd>,
}

impl Object {
    /// Makes the maps of the file, and loads these of its programs.
    pub(super) fn load(file: &[u8], programs: &[(&str, Kind)]) -> Result<Self, KernelError> {
        let name = programs.first().map_or("", |(name, _)| name);
        let malformed = |cause: String| malformed(name, cause);
        let mut object = aya_obj::Object::parse(file).map_err(|error| malformed(error.to_string()))?;
        let mut maps = HashMap::new();
        for (name, map) in &object.maps {
            maps.insert(name.clone(), make_map(name, map).doing("make the BPF map", name)?);
        }
        let sections = object.functions.keys().map(|(section, _)| *section).collect();
        let known = object.maps.clone();
        let known = known.iter().filter_map(|(name, map)| Some((&**name, maps.get(name)?.as_raw_fd(), map)));
        object.relocate_maps(known, &sections).map_err(|error| malformed(error.to_string()))?;
        object.relocate_calls(&sections).map_err(|error| malformed(error.to_string()))?;
        let mut loaded = HashMap::new();
        for (name, kind) in programs {
            let program = object.programs.get(*name);
            let code = program.and_then(|program| object.functions.get(&program.function_key()));
            let code = code.ok_or_else(|| malformed(format!("the program {name} is missing")))?;
            let program = call::load_program(name, *kind, &code.instructions, &object.license);
            loaded.insert((*name).to_owned(), program.doing(LOAD, name)?);
        }
        Ok(Self { programs: loaded, maps })
    }

    pub(super) fn program(&mut self, name: &str) -> Result<OwnedFd, KernelError> {
        self.programs.remove(name).ok_or_else(|| malformed(name, "it is missing".into()))
    }

    pub(super) fn map(&mut self, name: &str) -> Result<OwnedFd, KernelError> {
        self.maps.remove(name).ok_or_else(|| malformed(name, "the map is missing".into()))
    }
}

fn make_map(name: &str, map: &aya_obj::Map) -> io::Result<OwnedFd> {
    let mut new = NewMap {
        kind: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        max_entries: map.max_entries(),
        flags: map.map_flags(),
        name: call::kernel_name(name),
        ..NewMap::default()
    };
    if new.kind != SK_STORAGE {
        return call::create_map(&new);
    }
    let types = call::load_types(&numbers(new.value_size / 4))?;
    new.types = types.as_raw_fd().cast_unsigned();
    (new.key_type, new.value_type) = (1, 2);
    call::create_map(&new)
}

/// Two types in the format BTF: a number of 32 bits, and so many of it.
fn numbers(count: u32) -> Vec<u8> {
    const INT: u32 = 1 << 24;
    const ARRAY: u32 = 3 << 24;
    let types = [1, INT, 4, 32, 0, ARRAY, 0, 1, 1, count];
    let strings = b"\0u32\0";
    let (types_length, strings_length) = (size_of_val(&types) as u32, strings.len() as u32);
    let mut bytes = 0xeb9f_u16.to_ne_bytes().to_vec();
    // The version, no flags.
    bytes.extend([1, 0]);
    let header = [24, 0, types_length, types_length, strings_length];
    bytes.extend(header.iter().chain(&types).flat_map(|word| word.to_ne_bytes()));
    bytes.extend(strings);
    bytes
}

fn malformed(name: &str, cause: String) -> KernelError {
    KernelError::new(LOAD, name, io::Error::new(io::ErrorKind::InvalidData, cause))
}
