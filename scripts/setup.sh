#!/bin/bash
# Sees that what a target of the Makefile needs is there, and on Debian and Ubuntu installs what is missing.
#
#   scripts/setup.sh build|lint|demo|demo-cluster|test|test-runtimes|bench
set -euo pipefail

# Command or file, and the Debian package that has it.
build="cargo: cc:gcc clang:clang"
lab="ip:iproute2 nft:nftables unshare:util-linux setpriv:util-linux ping:iputils-ping python3:python3-minimal
     curl:curl dig:bind9-dnsutils redis-server:redis-server redis-cli:redis-tools dnsmasq:dnsmasq-base
     etcd:etcd-server etcdctl:etcd-client openssl:openssl"
runtimes="podman:podman conmon:conmon runc:runc containerd:containerd ctr:containerd dockerd:docker.io docker:docker.io
     /bin/busybox:busybox-static"
test="$lab $runtimes nc:netcat-openbsd tcpdump:tcpdump ss:iproute2 ps:procps"
bench="$test nginx:nginx-light iperf3:iperf3 wrk:wrk dnsperf:dnsperf haproxy:haproxy docker-proxy:docker.io iptables:iptables
     /usr/lib/nginx/modules/ngx_stream_module.so:libnginx-mod-stream /usr/lib/podman/netavark:netavark
     /usr/lib/podman/aardvark-dns:aardvark-dns /usr/lib/cni/bridge:containernetworking-plugins
     /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf:fonts-dejavu-core"
lint="$build"

case "${1:-}" in
    build) needed=$build ;;
    lint) needed=$lint ;;
    demo) needed="$build $lab" ;;
    demo-cluster) needed="$build $lab nginx:nginx-light" ;;
    test | test-runtimes) needed="$build $test" ;;
    bench) needed="$build $bench" ;;
    *) echo "usage: $0 build|lint|demo|demo-cluster|test|test-runtimes|bench" >&2; exit 2 ;;
esac

# The lab makes namespaces, which is root's; tests and demo are then started by sudo.
if [[ $EUID -ne 0 && $needed == *unshare:* ]] && ! command -v sudo >/dev/null; then
    echo "\`make $1\` makes network namespaces: run it as root, or install sudo and give this user leave to use it" >&2
    exit 1
fi

missing=() packages=()
for pair in $needed; do
    if [[ ${pair%%:*} == /* && -e ${pair%%:*} ]] || PATH=$PATH:/usr/sbin:/sbin command -v "${pair%%:*}" >/dev/null; then continue; fi
    missing+=("${pair%%:*}")
    packages+=(${pair##*:})
done
# python3 -m http.server is in the standard library, which Debian parts from the interpreter.
if [[ $needed == *python3:* ]] && ! python3 -c 'import http.server' 2>/dev/null; then
    missing+=("python3 -m http.server")
    packages+=(python3)
fi
# The containers of the tests have nothing but busybox, which must bring its libraries along.
if [[ $needed == *:busybox-static* && -e /bin/busybox ]] && ldd /bin/busybox >/dev/null 2>&1; then
    missing+=("a static /bin/busybox")
    packages+=(busybox-static)
fi
[[ ${#missing[@]} -eq 0 ]] && exit 0

if ! command -v cargo >/dev/null; then
    echo "cargo is missing: install Rust $(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml) or newer, see https://rustup.rs" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}" >&2
    echo "this is neither Debian nor Ubuntu: install them by your own package manager, then try again" >&2
    exit 1
fi

as_root=()
[[ $EUID -eq 0 ]] || as_root=(sudo)
echo "missing: ${missing[*]}; installing ${packages[*]}"

# A package must not start its server on this machine, now or at the next boot: the lab starts its own.
policy=/usr/sbin/policy-rc.d
if [[ ! -e $policy ]]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi
"${as_root[@]}" apt-get update -q
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${packages[@]}"
for package in "${packages[@]}"; do
    case $package in
        redis-server | nginx-light | haproxy | etcd-server | docker.io | containerd | podman)
            unit=${package%-light}
            unit=${unit%.io}
            unit=${unit/#etcd-server/etcd}
            if command -v systemctl >/dev/null; then
                "${as_root[@]}" systemctl disable --quiet "$unit" 2>/dev/null || echo "note: the service $unit may start at boot"
            fi
            ;;
    esac
done
