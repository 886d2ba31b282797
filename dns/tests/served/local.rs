//! Names of the tables, asked for as a user asks: with dig, over real sockets.

use crate::lab::{Lab, name};

#[test]
fn names_and_their_forms_resolve_in_any_case() {
    let lab = Lab::serving(vec![name("web", &["10.0.0.2", "fd00::2"]), name("c1.net1", &["10.0.0.3"])]);
    for (question, answer) in [
        ("web A", "web. A 10.0.0.2"),
        ("WEB A", "WEB. A 10.0.0.2"),
        ("web.shop AAAA", "web.shop. AAAA fd00::2"),
        ("c1.net1 A", "c1.net1. A 10.0.0.3"),
        ("c1.net1.SHOP A", "c1.net1.SHOP. A 10.0.0.3"),
        ("-x 10.0.0.3", "3.0.0.10.in-addr.arpa. PTR c1.net1.shop."),
        ("web. A +noedns", "web. A 10.0.0.2"),
        ("web A +tcp", "web. A 10.0.0.2"),
    ] {
        let got = lab.dig(question);
        assert_eq!(
            (got.status.as_str(), got.answers.as_slice()),
            ("NOERROR", &[answer.to_owned()][..]),
            "{question}"
        );
        assert_eq!(got.flags.trim(), "qr rd ra", "{question}: {}", got.whole);
    }
}
