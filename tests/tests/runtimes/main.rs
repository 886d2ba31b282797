//! The distribution's own runtimes drive netd by their own command lines: `make test-runtimes`.

mod containerd;
mod docker;
mod podman;
