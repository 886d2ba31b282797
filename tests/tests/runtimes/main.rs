//! The distribution's own runtimes drive netd by their own command lines: `make test-runtimes`.

mod containerd;
mod cri;
mod docker;
mod pages;
mod podman;
