//! Namespaces as a user sees them: by name, with `ip`, across failures and panics.

mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::thread;

use lab::{attempt, machine, run};
use netd_sys::netns::Netns;
use netd_sys::sysctl;

const WEB: &str = "/run/netns/web";

#[test]
fn a_created_namespace_is_one_for_ip_netns_too() {
    machine(|| {
        let web = Netns::create_at(Path::new(WEB)).expect("create");
        assert_eq!(run("ip netns list").trim(), "web");
        assert_eq!(run("ip netns exec web readlink /proc/self/ns/net").trim(), web.id().to_string());
        run("ip netns add other");
        assert_eq!(
            run("grep -c ' /run/netns ' /proc/self/mountinfo").trim(),
            "1",
            "one shared mount, not stacked"
        );
        assert!(Netns::open(Path::new("/run/netns/other")).is_ok());
    });
}

#[test]
fn removal_is_repeatable_and_creation_is_not() {
    machine(|| {
        let path = Path::new(WEB);
        Netns::remove_at(path).expect("nothing there is no error");
        let web = Netns::create_at(path).expect("create");
        let refused = Netns::create_at(path).expect_err("the name is taken");
        assert_eq!(refused.errno(), Some(libc::EEXIST));
        assert_eq!(refused.to_string(), "cannot mount the network namespace on /run/netns/web");
        assert_eq!(Netns::open(path).expect("untouched").id(), web.id());

        Netns::remove_at(path).expect("remove");
        assert!(!path.exists());
        Netns::remove_at(path).expect("remove again");
        fs::write(path, "").expect("what a crash between file and mount leaves");
        Netns::remove_at(path).expect("remove the rest");
        assert!(!path.exists());
        web.run(|| ()).expect("it lives on while it is held");
    });
}

#[test]
fn what_somebody_else_put_there_stays() {
    machine(|| {
        run(
            "mkdir -p /run/netns/directory && echo mine > /run/netns/file && ln -s /proc/self/ns/net /run/netns/link",
        );
        for name in ["directory", "file", "link"] {
            let path = Path::new("/run/netns").join(name);
            let refused = Netns::remove_at(&path).expect_err(name);
            assert_eq!(refused.to_string(), format!("cannot remove {}", path.display()));
            assert!(path.symlink_metadata().is_ok(), "{name}");
        }
    });
}

#[test]
fn many_made_at_once_all_appear_under_one_mount() {
    machine(|| {
        let made: Vec<Netns> = thread::scope(|scope| {
            let make =
                |n: u32| move || Netns::create_at(Path::new(&format!("/run/netns/n{n}"))).expect("create");
            let makers: Vec<_> = (0..16).map(|n| scope.spawn(make(n))).collect();
            makers.into_iter().map(|maker| maker.join().expect("made")).collect()
        });
        let different: BTreeSet<_> = made.iter().map(Netns::id).collect();
        assert_eq!(different.len(), 16);
        assert_eq!(run("ip netns list | wc -l").trim(), "16");
        assert_eq!(run("grep -c ' /run/netns ' /proc/self/mountinfo").trim(), "1");
    });
}

#[test]
fn one_namespace_may_have_two_names() {
    machine(|| {
        let web = Netns::create_at(Path::new(WEB)).expect("create");
        web.bind_at(Path::new("/run/netns/alias")).expect("bind");
        Netns::remove_at(Path::new(WEB)).expect("remove");
        assert_eq!(Netns::open(Path::new("/run/netns/alias")).expect("open").id(), web.id());
        let host = Netns::current().expect("current");
        host.bind_at(Path::new("/run/netns/host")).expect("the host's own");
        assert_eq!(run("ip netns exec host readlink /proc/self/ns/net").trim(), host.id().to_string());
    });
}

#[test]
fn what_is_no_network_namespace_is_refused() {
    machine(|| {
        for path in ["/proc/self/ns/mnt", "/etc/hostname", "/dev/null"] {
            let refused = Netns::open(Path::new(path)).expect_err(path);
            assert!(refused.to_string().contains(path), "{refused}");
            assert!(!Netns::is_mounted_at(Path::new(path)), "{path}");
        }
        run("mkfifo /run/pipe");
        assert!(Netns::open(Path::new("/run/pipe")).is_err(), "and does not block either");
    });
}

#[test]
fn a_failed_mount_leaves_no_file_behind() {
    machine(|| {
        // A read-only directory: the file cannot be made. A name too long: nor can the mount.
        let long = format!("/run/netns/{}", "x".repeat(300));
        assert!(Netns::create_at(Path::new(&long)).is_err());
        assert_eq!(fs::read_dir("/run/netns").expect("made").count(), 0);
    });
}

#[test]
fn a_panic_inside_comes_back_to_the_own_namespace() {
    machine(|| {
        let web = Netns::create_at(Path::new(WEB)).expect("create");
        let home = Netns::current().expect("current").id();
        let inside = web.run(|| fs::metadata("/proc/thread-self/ns/net").expect("stat").ino()).expect("run");
        assert_eq!(inside, web.id().inode);

        let caught = panic::catch_unwind(AssertUnwindSafe(|| web.run(|| panic!("inside"))));
        assert!(caught.is_err());
        assert_eq!(Netns::current().expect("current").id(), home);
    });
}

#[test]
fn a_cookie_is_never_given_out_again() {
    machine(|| {
        let mut seen = vec![Netns::current().expect("current").cookie().expect("its cookie")];
        for _ in 0..3 {
            let web = Netns::create_at(Path::new(WEB)).expect("create");
            let cookie = web.cookie().expect("its cookie");
            assert_eq!(Netns::open(Path::new(WEB)).expect("open").cookie().expect("the same"), cookie);
            assert!(!seen.contains(&cookie), "{cookie} of {seen:?}");
            seen.push(cookie);
            Netns::remove_at(Path::new(WEB)).expect("remove");
        }
    });
}

#[test]
fn a_sysctl_is_set_where_it_is_meant_and_says_what_it_was() {
    machine(|| {
        let web = Netns::create_at(Path::new(WEB)).expect("create");
        let key = "net/ipv4/ip_forward";
        let here = sysctl::read(key).expect("read");
        assert_eq!(sysctl::write_in(&web, key, "1").expect("write"), "0");
        assert_eq!(sysctl::write_in(&web, key, "1").expect("again"), "1");
        assert_eq!(run("ip netns exec web cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
        assert_eq!(sysctl::read(key).expect("read"), here, "not here");

        for key in ["net/../kernel/panic", "/etc/passwd", "net//ipv4", ""] {
            let refused = sysctl::write(key, "1").expect_err(key);
            assert!(refused.to_string().contains("sysctl"), "{refused}");
        }
        assert!(attempt("test -e /proc/sys/net/nosuch").status.code() == Some(1));
        assert!(sysctl::read("net/nosuch").is_err());
    });
}
